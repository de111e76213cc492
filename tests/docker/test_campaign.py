"""Whole campaigns with every stage in a container, and what happens when somebody dies at 3 a.m."""

import os
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from aot_core.contracts.summary import CampaignSummary

pytestmark = [pytest.mark.docker, pytest.mark.timeout(3600)]

ROOT = Path(__file__).parents[2]
ONE_LONG_STAGE = [
    "--set", "stop_after=prepare_data", "--set", "prepare_data.effectiveness.enabled=false",
    "--set", "prepare_data.splits.warm_start=3000",
]  # fmt: skip
"""A campaign of a single stage that takes long enough to be disturbed."""


def summary_of(home: Path) -> CampaignSummary:
    (file,) = (home / "campaigns").glob("smoke-*/summary.json")
    return CampaignSummary.model_validate_json(file.read_bytes())


def running(containers: Callable[[], list[Any]]) -> list[Any]:
    return [container for container in containers() if container.status == "running"]


def table_of(said: str) -> list[str]:
    table = said[said.index("strict accuracy") :]
    return re.findall(r"\d+\.\d", table[: table.index("registered ")])


def test_a_campaign_in_containers_ends_as_in_one_process(
    aot: Callable[..., Any], containers: Callable[[], list[Any]], created: Callable[[], list[str]], tmp_path: Path
) -> None:
    inside, _ = (process := aot(control=True)).communicate(timeout=3000)
    assert process.returncode == 0, inside
    ended = summary_of(tmp_path / "home")
    assert ended.aliases == ("champion",), "the orchestrator has no torch: its smoke test has a container too"
    assert re.fullmatch(r"there is no champion yet; clean .*; promoted", ended.promotion_reason)
    command = [
        sys.executable,
        "-m",
        "aot_core",
        "run",
        "configs/smoke.toml",
        "--home",
        str(tmp_path / "other"),
    ]
    wide = os.environ | {"COLUMNS": "200"}
    here = subprocess.run(command, cwd=ROOT, env=wide, capture_output=True, text=True, check=True).stdout
    assert table_of(inside) == table_of(here) != []
    steps, others = ended.steps, summary_of(tmp_path / "other").steps
    assert [step.record.stage for step in steps] == [step.record.stage for step in others]
    for mine, theirs in zip(steps, others, strict=True):
        assert mine.record.metrics == pytest.approx(theirs.record.metrics, rel=1e-3, abs=1e-3), mine.record.stage
        assert mine.record.image_digest.startswith("sha256:")
    assert steps[0].record.artifact == others[0].record.artifact, "the data to the byte"
    names = [name for name in created() if name.startswith("aot-")]
    assert len(names) == len(set(names)) == len(steps) == 8, "every stage in a container of its own"
    assert containers() == []


def test_a_killed_orchestrator_finds_its_container_again(
    aot: Callable[..., Any],
    containers: Callable[[], list[Any]],
    created: Callable[[], list[str]],
    wait_until: Callable[..., Any],
    tmp_path: Path,
) -> None:
    process = aot(*ONE_LONG_STAGE)
    (container,) = wait_until(lambda: running(containers))
    process.send_signal(signal.SIGKILL)
    process.wait()
    container.reload()
    assert container.status == "running", "it outlives who started it"
    said, _ = (again := aot(*ONE_LONG_STAGE)).communicate(timeout=900)
    assert again.returncode == 0, said
    assert summary_of(tmp_path / "home").status == "finished"
    assert created() == [container.name], "nothing was begun twice"
    assert containers() == []


def test_a_killed_container_is_tried_once_more_and_then_a_typed_error(
    aot: Callable[..., Any],
    containers: Callable[[], list[Any]],
    created: Callable[[], list[str]],
    wait_until: Callable[..., Any],
) -> None:
    process = aot(*ONE_LONG_STAGE)
    (first,) = wait_until(lambda: running(containers))
    first.kill("SIGKILL")
    (second,) = wait_until(lambda: [c for c in running(containers) if c.id != first.id])
    second.kill("SIGKILL")
    said, _ = process.communicate(timeout=900)
    assert process.returncode == 1, said
    assert "signal 9" in said and "StageCrashedError" in said
    assert Counter(created()) == {first.name: 2}
    assert containers() == []


def test_a_run_cancelled_in_prefect_takes_its_container_with_it(
    aot: Callable[..., Any], containers: Callable[[], list[Any]], prefect_server: str, wait_until: Callable[..., Any]
) -> None:
    process = aot(*ONE_LONG_STAGE, "--set", "prepare_data.splits.train=20000")
    wait_until(lambda: running(containers))
    only_running = {"flow_runs": {"state": {"type": {"any_": ["RUNNING"]}}}}
    newest = {**only_running, "sort": "START_TIME_DESC", "limit": 1}
    (run,) = httpx.post(f"{prefect_server}/flow_runs/filter", json=newest).json()
    state = {"state": {"type": "CANCELLING"}, "force": False}
    httpx.post(f"{prefect_server}/flow_runs/{run['id']}/set_state", json=state).raise_for_status()
    wait_until(lambda: containers() == [], seconds=40)
    process.communicate(timeout=300)
    assert process.returncode != 0
    assert httpx.get(f"{prefect_server}/flow_runs/{run['id']}").json()["state"]["type"] == "CANCELLED"


def test_sigterm_takes_the_container_with_it(
    aot: Callable[..., Any], containers: Callable[[], list[Any]], wait_until: Callable[..., Any]
) -> None:
    process = aot(*ONE_LONG_STAGE)
    wait_until(lambda: running(containers))
    process.terminate()
    wait_until(lambda: containers() == [], seconds=40)
    process.communicate(timeout=300)
    assert process.returncode != 0


def test_what_the_machine_lacks_is_said_in_a_line(aot: Callable[..., Any], tmp_path: Path) -> None:
    said, _ = (process := aot(DOCKER_HOST=f"unix://{tmp_path}/nowhere.sock")).communicate(timeout=900)
    assert process.returncode == 2
    assert "no docker daemon answers" in said and "Traceback" not in said
    said, _ = (process := aot("--set", "run.docker.image=aot-nowhere")).communicate(timeout=900)
    assert process.returncode == 2
    assert "docker/build.sh" in said and "Traceback" not in said
