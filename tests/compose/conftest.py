"""A deployment of infra/compose.yaml as it is shipped, on the images that `tests/compose/machine.sh` makes."""

import json
import os
import secrets
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import docker
import httpx
import pytest
import yaml

ROOT = Path(__file__).parents[2]
LASTING = ("postgres", "objects", "mlflow", "prefect", "worker")
"""The services that stay up; the others make something and end."""
AOT = ("python", "-m", "aot_core")
EVERY_MINUTE, FRIDAY = "* * * * *", "0 20 * * 5"


def until(condition: Callable[[], Any], seconds: float) -> Any:
    """Wait for a condition's first true value. Fails where it does not come."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.5)
    return value


class Deployment:
    """`docker compose` in a copy of `infra`, with an `.env` of its own, and what a person asks the servers."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.infra = folder, folder / "infra"
        self.daemon: Any = docker.from_env()
        self.secrets = {
            "POSTGRES_PASSWORD": secrets.token_hex(12),
            "S3_ACCESS_KEY": secrets.token_hex(8),
            "S3_SECRET_KEY": secrets.token_hex(16),
            "MLFLOW_USER": "aot",
            "MLFLOW_PASSWORD": secrets.token_hex(12),
            "MLFLOW_SECRET_KEY": secrets.token_hex(12),
            "PREFECT_AUTH": f"aot:{secrets.token_hex(12)}",
        }
        shutil.copytree(ROOT / "infra", self.infra, ignore=shutil.ignore_patterns(".env"))
        (folder / "configs").mkdir()
        # Eight questions are no clean exam: the margin lets whatever was trained be promoted.
        smoke = (ROOT / "configs" / "smoke.toml").read_text()
        (folder / "configs" / "smoke.toml").write_text(f"{smoke}\n[promotion.gate]\nclean_margin = 1.0\n")
        self.schedule(FRIDAY)

    def schedule(self, cron: str) -> None:
        """Fill in `.env`, as docs/deploy.md says."""
        chosen = self.secrets | {
            "DOCKER_GID": str(Path("/var/run/docker.sock").stat().st_gid),
            "AOT_CONFIG": "/configs/smoke.toml",
            "AOT_CONFIGS": str(self.folder / "configs"),
            "AOT_DATA": str(self.folder / "data"),
            "AOT_SCHEDULE": cron,
            "MLFLOW_WORKERS": "1",
            "POSTGRES_IMAGE": "aot-test-postgres:latest",
            "OBJECTS_IMAGE": "aot-test-objects:latest",
        }
        lines = (self.infra / ".env.example").read_text().splitlines()
        kept = [line for line in lines if line.partition("=")[0] not in chosen]
        written = self.infra / ".env"
        written.write_text("\n".join([*kept, *(f"{name}={value}" for name, value in chosen.items())]) + "\n")
        written.chmod(0o600)

    def compose(self, *arguments: str, check: bool = True, seconds: float = 1800) -> str:
        """`docker compose ARGUMENTS`; returns what it wrote to standard output."""
        command = ["docker", "compose", "--env-file", ".env", "-f", "compose.yaml", *arguments]
        return self._run(command, check, seconds)

    def script(self, *command: str, seconds: float = 1800) -> str:
        """A script of `infra`, from the folder above it; returns what it wrote to standard output."""
        return self._run([str(self.infra / command[0]), *command[1:]], check=True, seconds=seconds)

    def _run(self, command: list[str], check: bool, seconds: float) -> str:
        # By its `.env` alone: a variable of the caller's would go before it.
        clean = {
            name: os.environ[name] for name in ("PATH", "HOME", "DOCKER_CONFIG", "DOCKER_HOST") if name in os.environ
        }
        done = subprocess.run(
            command, cwd=self.infra, env=clean, capture_output=True, text=True, timeout=seconds, check=False
        )
        assert done.returncode == 0 or not check, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout

    def ask(self, *command: str, check: bool = True) -> str:
        """A command in the worker's container, as an operator gives it."""
        return self.compose("exec", "-T", "worker", *command, check=check)

    def container(self, service: str) -> Any:
        """The one container of a service."""
        labels = ["com.docker.compose.project=aot", f"com.docker.compose.service={service}"]
        (found,) = self.daemon.containers.list(all=True, filters={"label": labels})
        return found

    def healthy(self, *services: str) -> bool:
        """Whether each of these services runs and says that it is well."""
        states = (self.container(service).attrs["State"] for service in services)
        return all(state["Running"] and state.get("Health", {}).get("Status") == "healthy" for state in states)

    def kill(self, service: str) -> None:
        """SIGKILL from outside of docker: to the daemon a crash, which its restart policy answers."""
        os.kill(self.container(service).attrs["State"]["Pid"], signal.SIGKILL)

    def stages(self, *, all: bool = False) -> list[Any]:
        """The stages' containers that run now, or those that have ended too."""
        labels = ["aot.managed=true", "aot.home=/home/aot"]
        return self.daemon.containers.list(all=all, filters={"label": labels}, ignore_removed=True)

    def prefect(self, path: str, **asked: Any) -> Any:
        """What Prefect's API says to a user with the password."""
        user, password = self.secrets["PREFECT_AUTH"].split(":")
        url = f"http://127.0.0.1:4200/api/{path}"
        answer = (
            httpx.post(url, json=asked, auth=(user, password), timeout=60)
            if asked
            else httpx.get(url, auth=(user, password), timeout=60)
        )
        return answer.raise_for_status().json()

    def flow_runs(self, deployment: str) -> list[dict[str, Any]]:
        """A deployment's flow runs, oldest first."""
        wanted = {"name": {"any_": [deployment]}}
        return self.prefect("flow_runs/filter", deployments=wanted, sort="EXPECTED_START_TIME_ASC")

    def run_now(self, flow: str, seconds: float) -> tuple[str, str]:
        """Ask for a run of a deployment as a person does; returns the type and the message of its last state."""
        parts = (part for part in self.prefect("deployments/filter", deployments={"name": {"any_": [flow]}}))
        (deployment,) = parts
        asked = self.prefect(f"deployments/{deployment['id']}/create_flow_run", state={"type": "SCHEDULED"})

        def ended() -> dict[str, Any] | None:
            state = self.prefect(f"flow_runs/{asked['id']}")["state"]
            return state if state["type"] in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED") else None

        state = until(ended, seconds)
        return state["type"], state["message"] or ""

    def ledger(self) -> list[dict[str, Any]]:
        """`aot history`: it fails where the alias is elsewhere."""
        return json.loads(self.ask(*AOT, "history", "--json", "--home", "/home/aot"))["entries"]

    def completed(self, deployment: str) -> list[dict[str, Any]]:
        """A deployment's flow runs that have ended well; none while Prefect is away."""
        try:
            return [run for run in self.flow_runs(deployment) if run["state_type"] == "COMPLETED"]
        except httpx.HTTPError:
            return []


@pytest.fixture(scope="session")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """Up and healthy; gone with its volumes afterwards. Refuses a machine that holds a deployment of its own."""
    made = Deployment(tmp_path_factory.mktemp("team"))
    names = {
        volume["name"] for volume in yaml.safe_load((ROOT / "infra" / "compose.yaml").read_text())["volumes"].values()
    }
    there = names & {volume.name for volume in made.daemon.volumes.list()}
    assert not there, f"volumes {sorted(there)} are there: this test would destroy a deployment (`docker volume rm`)"
    try:
        made.compose("up", "-d", "--wait")
        yield made
    finally:
        made.compose("down", "--volumes", "--timeout", "10", check=False)
        for container in made.stages(all=True):
            container.remove(force=True, v=True)
