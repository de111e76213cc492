"""From `aot ui` and `aot deploy` to runs that are due, on a home's real servers.

`tests/services/test_schedules.py` waits until one starts, lives long, or dies.
"""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from typer.testing import CliRunner

from aot_core.commands.cli import app
from flows.deployments import deployment_of, schedules
from flows.heartbeat import AUTOMATION, FREQUENCY

ROOT = Path(__file__).parents[2]
SMOKE = ROOT / "configs" / "smoke.toml"
CLEAN = {
    key: value
    for key, value in os.environ.items()
    if not key.startswith(("PREFECT_", "MLFLOW_TRACKING")) and not key.lower().endswith("_proxy")
}
SECONDS = 600
pytestmark = pytest.mark.timeout(1800)


def free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def until(condition: Callable[[], Any], seconds: float = SECONDS) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.3)
    return found


def aot(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "aot_core.commands.cli", *arguments]
    settings: dict[str, Any] = {"cwd": ROOT, "env": CLEAN | environment, "text": True, "timeout": SECONDS}
    return subprocess.run(command, capture_output=True, check=False, **settings)


@dataclass
class Served:
    """A home whose pages are served."""

    home: Path
    ui: "subprocess.Popen[bytes]"
    mlflow: str
    prefect: str

    def ask(self, route: str, **wanted: Any) -> Any:
        return httpx.post(f"{self.prefect}/api/{route}", json=wanted).raise_for_status().json()

    def limits(self) -> list[float]:
        """The seconds of silence after which each automation takes a run for dead."""
        found = self.ask("automations/filter")
        return [automation["trigger"]["within"] for automation in found if automation["name"] == AUTOMATION]

    def automation(self, name: str) -> Any:
        (found,) = (automation for automation in self.ask("automations/filter") if automation["name"] == name)
        return found


def answers(url: str) -> bool:
    try:
        return httpx.get(url).is_success
    except httpx.HTTPError:
        return False


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    # A home that is not there yet: `aot ui` is the first command of README's "Schedule retraining".
    home, log = tmp_path_factory.mktemp("homes") / "new", tmp_path_factory.mktemp("logs") / "ui.log"
    ports = [str(free_port()) for _ in range(2)]
    command = [sys.executable, "-m", "aot_core.commands.cli", "ui", "--home", str(home)]
    command += ["--mlflow-port", ports[0], "--prefect-port", ports[1]]
    # The address of a team's server is the caller's: this home's page is not to show the team's runs.
    with log.open("wb") as stream, subprocess.Popen(
        command, cwd=ROOT, env=CLEAN | {"PREFECT_API_URL": "http://127.0.0.1:9/api"}, stdout=stream, stderr=stream
    ) as ui:  # fmt: skip
        served = Served(home, ui, *(f"http://127.0.0.1:{port}" for port in ports))
        try:
            until(lambda: ui.poll() is not None or (answers(f"{served.prefect}/api/health") and answers(served.mlflow)))
            assert ui.poll() is None, log.read_text()
            yield served
        finally:
            ui.terminate()


def test_prefects_page_asks_the_server_that_it_came_from(served: Served) -> None:
    assert httpx.get(f"{served.prefect}/ui-settings").json()["api_url"] == f"{served.prefect}/api"


def test_a_schedule_makes_runs_within_seconds(served: Served) -> None:
    done = aot("deploy", str(SMOKE), "--schedule", "* * * * *", "--launcher", "subprocess", "--home", str(served.home))
    assert done.returncode == 0 and "coevolution        * * * * * (UTC)" in done.stdout, done.stderr
    began = time.monotonic()
    due = {"flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}}}
    until(lambda: served.ask("flow_runs/count", **due) > 0, seconds=60)
    print(f"the first {served.ask('flow_runs/count', **due)} runs after {time.monotonic() - began:.0f} s")


def test_every_deployment_carries_the_heartbeat_to_its_runs(served: Served) -> None:
    found = served.ask("deployments/filter")
    assert len(found) == 5
    for deployment in found:
        assert deployment["job_variables"] == {"env": {FREQUENCY: "30"}}
        assert deployment["parameters"]["config"] == str(SMOKE) and deployment["parameters"]["home"] == str(served.home)
        assert deployment["parameters"]["overrides"] == ['run.launcher="subprocess"']


def test_the_automation_is_made_once_and_brought_up_to_date(served: Served) -> None:
    assert served.limits() == [90]
    before = served.automation(AUTOMATION)
    # The config is here, and named from here.
    relative = ("deploy", "configs/smoke.toml", "--set", "run.store=.aot/store", "--home", str(served.home))
    assert aot(*relative).returncode == 0
    same = served.automation(AUTOMATION)
    assert same["updated"] == before["updated"], "a silence that it is counting would be forgotten"
    assert aot(*relative, **{FREQUENCY: "50"}).returncode == 0
    after = served.automation(AUTOMATION)
    assert served.limits() == [150] and after["id"] == before["id"]
    for deployment in served.ask("deployments/filter"):
        assert deployment["job_variables"] == {"env": {FREQUENCY: "50"}, "working_dir": str(ROOT)}
        assert deployment["parameters"]["config"] == str(SMOKE)


def test_nothing_is_deployed_where_something_is_wrong(served: Served, tmp_path: Path) -> None:
    before = [deployment["updated"] for deployment in served.ask("deployments/filter")]
    home = ("--home", str(served.home))
    cron = aot("deploy", str(SMOKE), "--schedule", "61 * * * *", *home)
    assert cron.returncode == 2 and cron.stderr.startswith("--schedule '61 * * * *' is not a cron schedule"), (
        cron.stderr
    )
    assert cron.stderr.count("\n") == 1 and not cron.stdout
    config = aot("deploy", str(SMOKE), "--set", "curate.scnes=1", *home)
    assert config.returncode == 2 and "did you mean 'scenes'?" in config.stderr
    assert aot("deploy", str(tmp_path / "none.toml"), *home).returncode == 2
    assert [deployment["updated"] for deployment in served.ask("deployments/filter")] == before


def test_a_worker_without_a_server_says_what_to_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    result = CliRunner().invoke(app, ["worker", "--home", str(tmp_path)])
    assert result.exit_code == 2 and f"aot ui --home {tmp_path}" in result.stderr


def test_the_default_working_folder_is_the_pools_affair() -> None:
    schedule = schedules("/configs/paper.toml", "/home/aot")[0]
    assert "working_dir" not in deployment_of(schedule, "aot").job_variables


def test_a_server_that_is_away_is_named(tmp_path: Path) -> None:
    address = f"http://127.0.0.1:{free_port()}/api"
    done = aot("deploy", str(SMOKE), "--home", str(tmp_path), PREFECT_API_URL=address)
    assert done.returncode == 2, done
    assert f"no Prefect server answers at {address}" in " ".join(done.stderr.split()) and "aot ui" in done.stderr


def test_a_port_that_is_taken_is_named(served: Served, tmp_path: Path) -> None:
    for option, address in (("--mlflow-port", served.mlflow), ("--prefect-port", served.prefect)):
        port = address.rpartition(":")[2]
        done = aot("ui", option, port, "--home", str(tmp_path))
        assert done.returncode == 2 and done.stderr.startswith(f"{option} {port} is taken by another program"), done
        assert done.stderr.count("\n") == 1


def test_the_end_of_one_server_ends_the_other(served: Served) -> None:
    """The last test of this file: nothing is served after it."""
    (mlflow,) = (child for child in psutil.Process(served.ui.pid).children() if "mlflow" in child.cmdline())
    mlflow.kill()
    assert served.ui.wait(60) == 1
    assert not answers(f"{served.prefect}/api/health") and not answers(served.mlflow)
    assert not (served.home / "prefect" / "served-at").exists()
