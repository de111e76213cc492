"""A schedule at work: a campaign starts by itself and outlives the silence limit, one dies, and the next goes on.

Prefect's real server and worker, a cron of every minute, no clock but the real one.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import psutil
import pytest

from aot_core.contracts.summary import CampaignSummary
from flows.heartbeat import FREQUENCY

pytestmark = [pytest.mark.services, pytest.mark.timeout(1800)]

ROOT = Path(__file__).parents[2]
CLEAN = {key: value for key, value in os.environ.items() if not key.startswith(("PREFECT_", "MLFLOW_TRACKING"))}
CLEAN |= {"PYTHONPATH": str(ROOT)}
LIMIT = 90
"""Seconds of silence: three of the shortest heartbeats that Prefect allows."""
HOLD = """
from flows.slots import gpu_slot
with gpu_slot(["aot-gpu-0"], lambda: False):
    print("held", flush=True)
    input()
"""


def aot(home: Path, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "aot_core", *arguments, "--home", str(home)]


def deploy(home: Path, *overrides: str, launcher: str = "subprocess") -> None:
    chosen = [part for override in overrides for part in ("--set", override)]
    command = aot(home, "deploy", str(ROOT / "configs" / "smoke.toml"), "--schedule", "* * * * *", "--gpus", "1")
    subprocess.run([*command, "--launcher", launcher, *chosen], cwd=ROOT, env=CLEAN, check=True, timeout=300)


class Runs:
    """The campaign's flow runs, as Prefect's pages see them."""

    def __init__(self, api: str) -> None:
        self._client = httpx.Client(base_url=api)

    def all(self) -> list[dict[str, Any]]:
        wanted = {"deployments": {"name": {"any_": ["coevolution"]}}, "sort": "EXPECTED_START_TIME_ASC"}
        return self._client.post("/flow_runs/filter", json=wanted).raise_for_status().json()

    def in_state(self, *types: str) -> list[dict[str, Any]]:
        return [run for run in self.all() if run["state_type"] in types]

    def state(self, run: str) -> tuple[str, str]:
        state = self._client.get(f"/flow_runs/{run}").raise_for_status().json()["state"]
        return state["type"], state["message"] or ""

    def next_running(self, seed: int, seconds: float = 300) -> dict[str, Any]:
        """The run of the campaign with this seed: one of an earlier deployment may be about to end."""
        deadline, wanted = time.monotonic() + seconds, f"seed={seed}"
        while not (running := [r for r in self.in_state("RUNNING") if wanted in r["parameters"]["overrides"]]):
            assert time.monotonic() < deadline, [(run["name"], run["state"]) for run in self.all()]
            time.sleep(0.5)
        return running[0]

    def beat(self, run: str) -> None:
        """A heartbeat of a run, as the server hears of one that comes late."""
        event = {
            "id": str(uuid4()),
            "event": "prefect.flow-run.heartbeat",
            "occurred": datetime.now(UTC).isoformat(),
            "resource": {"prefect.resource.id": f"prefect.flow-run.{run}"},
            "related": [{"prefect.resource.id": "prefect.tag.aot", "prefect.resource.role": "tag"}],
        }
        self._client.post("/events", json=[event]).raise_for_status()

    def taken_for_dead(self) -> set[str]:
        """The runs whose silence has set the automation off."""
        wanted = {"filter": {"event": {"name": ["prefect.automation.triggered"]}}}
        found = self._client.post("/events/filter", json=wanted).raise_for_status().json()["events"]
        labels = [event["payload"]["triggering_labels"].get("prefect.resource.id", "") for event in found]
        return {label.removeprefix("prefect.flow-run.") for label in labels}

    def end(self, run: str, seconds: float) -> tuple[str, str]:
        deadline = time.monotonic() + seconds
        while (state := self.state(run))[0] not in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED"):
            assert time.monotonic() < deadline, state
            time.sleep(0.5)
        return state


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def api(home: Path) -> Iterator[str]:
    """The API of the Prefect server that `aot ui` runs, on whatever port is free."""
    served = home / "prefect" / "served-at"
    with subprocess.Popen(aot(home, "ui"), cwd=ROOT, env=CLEAN) as ui:
        try:
            deadline = time.monotonic() + 120
            while not (served.exists() and alive(served.read_text().split()[1])):
                assert ui.poll() is None and time.monotonic() < deadline
                time.sleep(0.5)
            yield served.read_text().split()[1]
        finally:
            ui.terminate()


def alive(api: str) -> bool:
    try:
        return httpx.get(f"{api}/health").is_success
    except httpx.HTTPError:
        return False


@contextmanager
def worker(home: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """Its own heartbeat is Prefect's usual one, far above the silence limit: what counts is the deployment's."""
    environment = CLEAN | {FREQUENCY: "180"}
    with subprocess.Popen(aot(home, "worker"), cwd=ROOT, env=environment) as process:
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()


@contextmanager
def gpu_held(api: str) -> Iterator[None]:
    """Somebody else has the one GPU: a campaign's first stage waits, and its flow run lives on doing nothing."""
    command = [sys.executable, "-c", HOLD]
    environment = CLEAN | {"PREFECT_API_URL": api}
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        yield
        holder.communicate("\n", timeout=60)


def test_a_run_starts_by_itself_outlives_the_silence_limit_and_completes(home: Path, api: str) -> None:
    runs = Runs(api)
    deploy(home, "seed=0")
    with worker(home):
        with gpu_held(api):
            run = runs.next_running(seed=0)
            assert run["auto_scheduled"] and run["parent_task_run_id"] is None
            time.sleep(LIMIT + 60)
            assert runs.state(run["id"]) == ("RUNNING", ""), "it lives, and is left alone"
        assert runs.end(run["id"], seconds=900)[0] == "COMPLETED"
    ended = {run["id"]: run for run in runs.all()}[run["id"]]
    assert ended["total_run_time"] > LIMIT + 60
    assert runs.in_state("CANCELLED"), "those that fell due meanwhile"
    (file,) = (home / "campaigns").glob("smoke-*/summary.json")
    assert CampaignSummary.model_validate_json(file.read_bytes()).status == "finished"
    late = datetime.fromisoformat(ended["start_time"]) - datetime.fromisoformat(ended["expected_start_time"])
    print(f"{len(runs.all())} runs, one {late.total_seconds():.0f} s late that took {ended['total_run_time']:.0f} s")


def test_a_run_that_dies_with_its_worker_is_marked_crashed_and_the_next_goes_on(home: Path, api: str) -> None:
    runs = Runs(api)
    completed = [run["id"] for run in runs.in_state("COMPLETED")]
    runs.beat(completed[0])  # or the server loses the event of its end: in both cases the silence is counted
    deploy(home, "seed=1")
    with worker(home) as process:
        with gpu_held(api):
            run = runs.next_running(seed=1)
            time.sleep(45)  # more than one heartbeat
            dead = [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]
            for one in dead:
                one.send_signal(signal.SIGKILL)
            psutil.wait_procs(dead[:-1], 10)
        began = time.monotonic()
        assert runs.state(run["id"])[0] == "RUNNING", "nobody is left to say otherwise"
        assert runs.end(run["id"], seconds=2 * LIMIT) == ("CRASHED", f"No heartbeat for {LIMIT} s: its process died.")
        print(f"marked {time.monotonic() - began:.0f} s after its end")
    with worker(home):
        again = runs.next_running(seed=1)
        assert runs.end(again["id"], seconds=900)[0] == "COMPLETED"
    assert completed[0] in runs.taken_for_dead()
    assert all(runs.state(run)[0] == "COMPLETED" for run in completed), "who has ended is silent, and left alone"
