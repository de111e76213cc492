"""Compose, Kubernetes, Prefect and workflow files are what their tools read: by schema, and against the code."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from prefect.utilities.templating import apply_values, find_placeholders

from aot_core.contracts.launch import CONTAINER_ENVIRONMENT, KubernetesSettings
from aot_core.contracts.prepare_data import PrepareDataConfig, PrepareDataInputs
from aot_core.contracts.spec import Place, StageSpec
from aot_core.engine.identity import stage_spec
from aot_core.home import Home
from aot_core.launch.kubernetes import job_manifest, job_name

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
COMPOSE = yaml.safe_load((ROOT / "infra" / "compose.yaml").read_text())


def check_schema(schema: str, *files: Path) -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", f"vendor.{schema}", *map(str, files)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_compose_is_valid() -> None:
    check_schema("compose-spec", ROOT / "infra" / "compose.yaml")


def test_workflows_are_valid() -> None:
    assert len(WORKFLOWS) >= 3
    check_schema("github-workflows", *WORKFLOWS)


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
def test_actions_are_pinned_by_hash_and_no_secret_is_in_a_script(workflow: Path) -> None:
    text = workflow.read_text()
    for used in re.findall(r"uses: *(\S+)", text):
        assert re.fullmatch(r"[\w.-]+/[\w.-]+@[0-9a-f]{40}", used), f"{used} is not pinned"
    for job in yaml.safe_load(text)["jobs"].values():
        for step in job["steps"]:
            assert "${{" not in step.get("run", ""), "an expression in a script is an injection: pass it by env"


def test_nothing_in_compose_has_a_default_password_or_an_open_port() -> None:
    text = (ROOT / "infra" / "compose.yaml").read_text()
    for name in re.findall(r"\$\{(\w*(?:PASSWORD|SECRET|AUTH|ACCESS_KEY|USER)\w*)([^}]*)\}", text):
        assert name[1].startswith(":?"), f"{name[0]} must be demanded, not defaulted"
    for service in COMPOSE["services"].values():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))


def test_every_long_running_service_is_waited_for_by_its_health() -> None:
    services: dict[str, Any] = COMPOSE["services"]
    for name, service in services.items():
        for other, condition in service.get("depends_on", {}).items():
            kind = condition["condition"]
            assert kind in ("service_healthy", "service_completed_successfully"), (name, other)
            assert kind != "service_healthy" or "healthcheck" in services[other], (name, other)


def test_the_example_environment_names_every_variable_of_compose() -> None:
    wanted = set(re.findall(r"(?<!\$)\$\{(\w+):\?", (ROOT / "infra" / "compose.yaml").read_text()))
    example = dict(
        line.split("=", 1) for line in (ROOT / "infra" / ".env.example").read_text().splitlines() if "=" in line[:40]
    )
    assert wanted <= set(example)
    assert all(not example[name] for name in wanted), "an example is no default"


def spec_of(device: Any = "auto") -> StageSpec:
    place = Place(store="s3://bucket/team", device=device, campaign="c" * 64)
    return stage_spec("prepare_data", PrepareDataConfig(), PrepareDataInputs(), place)


def documents(file: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(file.read_text()))


KUBERNETES = [d for file in sorted((ROOT / "infra" / "kubernetes").glob("*.yaml")) for d in documents(file)]
JOBS = [
    job_manifest(spec_of(), KubernetesSettings(), stage_seconds=3600),
    job_manifest(spec_of("cpu"), KubernetesSettings(model_claim="aot-models")),
]


@pytest.mark.parametrize("manifest", [*KUBERNETES, *JOBS], ids=lambda m: f"{m['kind']}-{m['metadata']['name']}")
def test_kubernetes_manifests_are_valid(manifest: dict[str, Any]) -> None:
    kubernetes_validate.validate(manifest, "1.30", strict=True)


def test_a_stages_job_asks_for_a_gpu_unless_it_runs_on_a_cpu() -> None:
    gpu, cpu = (job["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"] for job in JOBS)
    assert gpu["nvidia.com/gpu"] == "1" and "nvidia.com/gpu" not in cpu
    assert JOBS[0]["spec"]["activeDeadlineSeconds"] == 3600


def test_a_job_is_named_by_store_and_key_and_carries_its_spec() -> None:
    spec = spec_of()
    assert re.fullmatch(r"[a-z0-9-]{1,63}", job_name(spec))
    other = spec.model_copy(update={"place": spec.place.model_copy(update={"store": "s3://other"})})
    assert job_name(spec) == job_name(spec_of()) != job_name(other)
    (container,) = JOBS[0]["spec"]["template"]["spec"]["containers"]
    environment = {entry["name"]: entry["value"] for entry in container["env"]}
    assert StageSpec.model_validate_json(environment["AOT_SPEC"]) == spec
    secret = {name for name in CONTAINER_ENVIRONMENT if "AWS" in name or "TRACKING" in name}
    assert not secret & set(environment), "credentials come from the secret"


POOLS = {file.stem: json.loads(file.read_text()) for file in sorted((ROOT / "infra" / "pools").glob("*.json"))}


def rendered(pool: dict[str, Any], **values: Any) -> dict[str, Any]:
    """A pool's job as a worker fills it in for a flow run."""
    defaults = {name: v["default"] for name, v in pool["variables"]["properties"].items() if "default" in v}
    return apply_values(pool["job_configuration"], defaults | values)


@pytest.mark.parametrize("kind", ["docker", "kubernetes"])
def test_every_placeholder_of_a_pool_is_a_variable_and_is_used(kind: str) -> None:
    pool = POOLS[kind]
    used = {placeholder.name for placeholder in find_placeholders(pool["job_configuration"])}
    assert used == set(pool["variables"]["properties"])


@pytest.mark.parametrize("kind", ["docker", "kubernetes"])
def test_no_secret_is_written_into_a_pool(kind: str) -> None:
    environment: dict[str, str] = POOLS[kind]["variables"]["properties"]["env"]["default"]
    secret = {name: value for name, value in environment.items() if re.search("KEY|PASSWORD|USERNAME|AUTH", name)}
    assert all(value.startswith("{{ prefect.blocks.secret.") for value in secret.values()), secret
    assert len(secret) == {"docker": 4, "kubernetes": 0}[kind], "on a cluster they come from the namespace's secret"


@pytest.mark.parametrize("gpus", ["0", "1"])
def test_a_pools_job_is_valid_and_leans_on_what_the_cluster_was_given(gpus: str) -> None:
    values = {"name": "a-flow-run", "command": ["prefect", "flow-run", "execute"], "labels": {"a": "b"}, "gpus": gpus}
    job = rendered(POOLS["kubernetes"], **values)["job_manifest"]
    pod = job["spec"]["template"]["spec"]
    # Prefect's worker demands them here, where the API server drops them.
    assert (pod.pop("parallelism"), pod.pop("completions")) == (1, 1)
    (container,) = pod["containers"]
    # The worker makes a list of it.
    container["env"] = [{"name": name, "value": value} for name, value in container["env"].items()]
    kubernetes_validate.validate(job, "1.30", strict=True)
    assert container["resources"]["limits"]["nvidia.com/gpu"] == gpus
    there = {(d["kind"], d["metadata"]["name"]) for d in KUBERNETES}
    claims = {v["persistentVolumeClaim"]["claimName"] for v in pod["volumes"] if "persistentVolumeClaim" in v}
    wanted = {("ServiceAccount", pod["serviceAccountName"]), *(("PersistentVolumeClaim", claim) for claim in claims)}
    assert claims and wanted <= there
    assert container["envFrom"] == [{"secretRef": {"name": KubernetesSettings().secret}}]


def test_a_docker_pools_container_gets_the_socket_and_nothing_else_of_the_host() -> None:
    job = rendered(POOLS["docker"], docker_group="998")
    assert job["container_create_kwargs"]["cap_drop"] == ["ALL"] and job["privileged"] is False
    assert job["container_create_kwargs"]["group_add"] == ["998"]
    assert {volume.split(":")[0] for volume in job["volumes"] if not volume.endswith(":ro")} == {
        "/var/run/docker.sock",
        COMPOSE["volumes"]["home"]["name"],
    }
    assert set(job["networks"]) == {network["name"] for network in COMPOSE["networks"].values()}


def test_prefect_yaml_says_what_the_code_deploys() -> None:
    from flows.deployments import deployment_of, schedules

    written = {d["name"]: d for d in yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]}
    coded = {schedule.name: schedule for schedule in schedules("/configs/paper.toml", "/home/aot")}
    assert set(written) == set(coded)
    for name, schedule in coded.items():
        assert [given["cron"] for given in written[name]["schedules"]] == ([schedule.cron] if schedule.cron else [])
        assert written[name]["parameters"] == schedule.parameters
        assert written[name]["entrypoint"].endswith(f":{schedule.flow.fn.__name__}")
        assert written[name]["concurrency_limit"] == {"limit": 1, "collision_strategy": "CANCEL_NEW"}
        deployed = deployment_of(schedule, "aot")
        assert written[name]["work_pool"] == {"name": deployed.work_pool_name, "job_variables": deployed.job_variables}
        assert written[name]["tags"] == deployed.tags


def test_one_heartbeat_everywhere() -> None:
    """A run that is slower to say that it lives than the automation is to bury it is a run that is killed."""
    from flows.heartbeat import FREQUENCY, job_environment

    pools = [pool["variables"]["properties"]["env"]["default"] for pool in POOLS.values()]
    places = [*pools, COMPOSE["services"]["worker"]["environment"], Home(ROOT).environment(), job_environment()]
    assert [place[FREQUENCY] for place in places] == ["30"] * 5
