"""A team's day on its servers: a campaign under which each of them dies and comes back, then what is scheduled."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from aot_core.contracts.summary import CampaignSummary

pytestmark = [pytest.mark.services, pytest.mark.timeout(3600)]

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "configs" / "smoke.toml"
CLEAN = {key: value for key, value in os.environ.items() if not key.startswith(("PREFECT_", "MLFLOW_TRACKING"))}


@pytest.fixture(scope="module")
def overrides(team: Any) -> list[str]:
    """Where the stages of this team run."""
    return ["run.launcher=subprocess", "run.store=s3://bucket/team", f"run.s3.endpoint_url={team.s3_url}"]


@pytest.fixture(scope="module")
def home(team: Any, overrides: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The home of a campaign that has come to its end though every server was away for a while."""
    home = tmp_path_factory.mktemp("home")
    process = aot(team, home, overrides)
    disturbances: dict[str, Callable[[], None]] = {
        "warm_start_attacker": team.mlflow.restart,
        "warm_start_defender": team.prefect.restart,
        "attacker_round": team.postgres.restart,
        "curate": lambda: pause(team.s3.process.pid),
    }
    said: list[str] = []
    for line in process.stdout or ():
        said.append(line)
        for stage in [stage for stage in disturbances if "running" in line and stage in line]:
            disturbances.pop(stage)()
    assert process.wait() == 0, "".join(said)
    assert not disturbances, "each happened"
    return home


def aot(team: Any, home: Path, overrides: list[str]) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "aot_core", "run", str(CONFIG), "--home", str(home)]
    for override in overrides:
        command += ["--set", override]
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env=CLEAN | team.client_environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def pause(pid: int) -> None:
    """moto forgets everything when it dies, so it is not killed but does not answer for a while."""
    os.kill(pid, signal.SIGSTOP)
    time.sleep(8)
    os.kill(pid, signal.SIGCONT)


def test_nobody_is_let_in_without_a_name(team: Any) -> None:
    anonymous = httpx.post(f"{team.mlflow_url}/api/2.0/mlflow/experiments/search", json={"max_results": 1})
    assert anonymous.status_code == 401
    count = f"{team.prefect_url}/flows/count"
    assert httpx.post(count, json={}).status_code == 401
    assert httpx.post(count, json={}, auth=(team.auth[0], "wrong")).status_code == 401
    assert httpx.post(count, json={}, auth=team.auth).is_success


def test_a_campaign_survives_the_restart_of_every_server(team: Any, home: Path) -> None:
    (file,) = (home / "campaigns").glob("smoke-*/summary.json")
    summary = CampaignSummary.model_validate_json(file.read_bytes())
    assert summary.status == "finished" and summary.mlflow_uri == team.mlflow_url and summary.aliases == ("champion",)
    assert not list((home / "store").glob("*")), "the store is the bucket"
    pages = team.objects.get_paginator("list_objects_v2").paginate(Bucket="bucket")
    keys = [item["Key"] for page in pages for item in page.get("Contents", [])]
    records = [key.split("/")[1] for key in keys if key.startswith("team/") and key.endswith("/record.json")]
    assert len([stage for stage in records if stage != "promotion"]) == 8 and "promotion" in records
    assert any(key.startswith("mlflow/") and key.endswith(".png") for key in keys), "MLflow's artifacts too"
    assert not [key for key in keys if key.startswith("team/.locks/") and not key.endswith(".probe")]
    with team.connect("mlflow") as connection, connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM runs WHERE status = 'FINISHED'")
        assert cursor.fetchone()[0] == 3, "the campaign, its start and its round"
    with team.connect("prefect") as connection, connection.cursor() as cursor:
        cursor.execute("SELECT state_type FROM flow_run")
        assert cursor.fetchall() == [("COMPLETED",)]


class Prefect:
    """The team's Prefect server, spoken to as its pages speak to it."""

    def __init__(self, team: Any) -> None:
        self._client = httpx.Client(base_url=team.prefect_url, auth=team.auth)

    def begin(self, flow: str, **parameters: Any) -> str:
        """Ask for a run of a deployment, which is named like its flow; returns the run's id."""
        name = {"coevolution": "scheduled-coevolution"}.get(flow, flow)
        found = self._client.get(f"/deployments/name/{name}/{flow}").raise_for_status().json()
        made = self._client.post(f"/deployments/{found['id']}/create_flow_run", json={"parameters": parameters})
        return made.raise_for_status().json()["id"]

    def begin_together(self, *flows: str) -> list[str]:
        """Ask for runs while the pool is paused: its worker, who asks every 10 s, then finds all of them at once."""
        self._client.patch("/work_pools/aot", json={"is_paused": True}).raise_for_status()
        runs = [self.begin(flow) for flow in flows]
        self._client.patch("/work_pools/aot", json={"is_paused": False}).raise_for_status()
        return runs

    def end(self, *runs: str, seconds: float = 600) -> list[tuple[str, str]]:
        """Wait for the runs; the type and message of each one's last state."""
        deadline = time.monotonic() + seconds
        while True:
            states = [self._client.get(f"/flow_runs/{run}").raise_for_status().json()["state"] for run in runs]
            if all(state["type"] in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED") for state in states):
                return [(state["type"], state["message"] or "") for state in states]
            assert time.monotonic() < deadline, states
            time.sleep(1)

    def running(self) -> list[str]:
        wanted = {"flow_runs": {"state": {"type": {"any_": ["RUNNING"]}}}}
        return [run["id"] for run in self._client.post("/flow_runs/filter", json=wanted).raise_for_status().json()]

    def unscheduled(self) -> list[str]:
        """Switch all schedules off, lest one falls due during a test; the deployments' names."""
        found = self._client.post("/deployments/filter", json={}).raise_for_status().json()
        for deployment in found:
            self._client.post(f"/deployments/{deployment['id']}/pause_deployment").raise_for_status()
        return sorted(deployment["name"] for deployment in found)


@pytest.fixture(scope="module")
def prefect(team: Any, home: Path, overrides: list[str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prefect]:
    """Everything deployed, twice, and a worker that serves it."""
    environment = CLEAN | team.client_environment | {"PREFECT_HOME": str(tmp_path_factory.mktemp("worker"))}
    environment |= {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "aot_core.commands.cli", "deploy", str(CONFIG), "--gpus", "1", "--home", str(home)]
    for override in overrides:
        command += ["--set", override]
    for _ in range(2):
        subprocess.run(command, cwd=ROOT, env=environment, check=True, timeout=300)
    served = Prefect(team)
    assert served.unscheduled() == ["coevolution", "evaluate-champion", "maintenance", "promotion", "reevaluation"]
    serve = [sys.executable, "-m", "prefect", "worker", "start", "--pool", "aot", "--limit", "2"]
    with subprocess.Popen(serve, cwd=ROOT, env=environment) as worker:
        yield served
        worker.terminate()
        try:
            worker.wait(30)
        except subprocess.TimeoutExpired:
            worker.kill()  # a worker that was started with SIGINT ignored (`pytest &`) does not hear its own


def test_a_worker_measures_the_champion_and_promotes_by_the_gates_leave(team: Any, prefect: Prefect) -> None:
    ((ended, told),) = prefect.end(prefect.begin("evaluate-champion"))
    assert ended == "COMPLETED" and "aot-defender version 1" in told and "1 Attacker met" in told
    with team.connect("mlflow") as connection, connection.cursor() as cursor:
        cursor.execute("SELECT value FROM model_version_tags WHERE key = 'aot.lately.attackers'")
        assert cursor.fetchall() == [("1",)]
    ((ended, told),) = prefect.end(prefect.begin("promotion", version="1", why="to see"))
    assert (ended, told) == ("COMPLETED", "aot-defender version 1 is the champion already")
    ((ended, told),) = prefect.end(prefect.begin("promotion", version="7"))
    assert ended == "FAILED" and "no gate has judged version 7" in told


def test_overlapping_runs_are_refused(prefect: Prefect) -> None:
    first, second = prefect.end(*prefect.begin_together("maintenance", "maintenance"))
    assert sorted((first[0], second[0])) == ["CANCELLED", "COMPLETED"]
    (told,) = [told for state, told in (first, second) if state == "COMPLETED"]
    assert told.startswith("0 runs marked Crashed")


def test_a_run_whose_process_dies_is_marked_crashed(
    team: Any, prefect: Prefect, overrides: list[str], tmp_path: Path
) -> None:
    from flows.heartbeat import silence_limit

    # In one process: a stage's own process would outlive this one.
    long = ["seed=1", "prepare_data.splits.train=20000", "run.launcher=inprocess"]
    process = aot(team, tmp_path, [*overrides, *long])
    deadline = time.monotonic() + 120
    while not (running := prefect.running()):
        assert time.monotonic() < deadline
        time.sleep(0.5)
    time.sleep(silence_limit() + 15)
    assert prefect.running() == running, "it lives, and is left alone"
    process.kill()
    process.wait()
    ((ended, told),) = prefect.end(*running, seconds=180)
    assert ended == "CRASHED" and "heartbeat" in told
