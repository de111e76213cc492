"""A series at work: four editions by a schedule alone, a fifth that is killed and resumed, a slot that is made up for.

Prefect's real server and worker, a cron of every minute, the smoke campaign.
"""

import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest

from aot_core.series.book import Edition, SeriesBook
from aot_core.series.planning import BEGUN_FROM_TAG, slot_of
from aot_core.store import LocalStore
from aot_core.tracking import registry
from tests.services.test_schedules import CLEAN, ROOT, Runs, aot, api, deploy, home, worker

__all__ = ["api", "home"]
pytestmark = [pytest.mark.services, pytest.mark.timeout(7200)]

SERIES = "series.name=weekly"
MISSED = "2026-01-02T20:00"


def book(home: Path) -> SeriesBook:
    return SeriesBook(LocalStore(home / "store"), "weekly")


def wait_for(home: Path, ended: int, seconds: float) -> list[Edition]:
    """Until so many editions have ended."""
    deadline = time.monotonic() + seconds
    while len(done := [edition for edition in book(home).editions() if edition.end is not None]) < ended:
        assert time.monotonic() < deadline, book(home).editions()
        time.sleep(2)
    return done


def test_four_editions_by_themselves_a_killed_fifth_and_a_missed_slot(home: Path, api: str) -> None:
    runs, uri = Runs(api), f"sqlite:///{home / 'mlflow' / 'mlflow.db'}"
    # In process: one import of torch an edition instead of one a stage. The margin: eight questions are no clean exam.
    deploy(home, SERIES, "promotion.gate.clean_margin=1.0", launcher="inprocess")
    with worker(home) as process:
        editions = wait_for(home, ended=4, seconds=3600)
        slots = {slot_of(run["expected_start_time"]) for run in runs.all() if run["auto_scheduled"]}
        assert [edition.plan.number for edition in editions] == [1, 2, 3, 4]
        assert {edition.plan.slot for edition in editions} <= slots, "each is told by its run's scheduled start"
        assert len({edition.plan.seed for edition in editions}) == 4
        assert editions[0].plan.defender is None and editions[0].plan.lineage == ("aot-tiny-vl",)
        champion = ""
        for edition in editions:
            assert edition.end is not None
            found = registry.get_version(uri, edition.end.version)
            assert found is not None and found[1]["aot.edition"] == str(edition.plan.number)
            assert edition.end.outcome.startswith(("promoted", "not promoted"))
            assert edition.plan.defender_version == champion, "each from the version that led when it was planned"
            if champion:
                began = registry.get_version(uri, champion)
                assert began is not None and edition.plan.defender is not None
                assert began[1]["aot.artifact_sha256"] == edition.plan.defender.sha256, "the champion, by its hash"
                assert found[1][BEGUN_FROM_TAG] == f"version {champion}"
            if edition.plan.number > 1:
                assert edition.plan.bank is not None and edition.plan.exam == editions[0].end.dataset  # pyright: ignore
            if edition.end.outcome.startswith("promoted"):
                champion = edition.end.version
        assert champion, "none of four editions was promoted"

        deadline = time.monotonic() + 300
        while len(planned := book(home).editions()) < 5 or runs.in_state("RUNNING") == []:
            assert time.monotonic() < deadline
            time.sleep(0.5)
        time.sleep(15)
        dead = [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]
        for one in dead:
            one.send_signal(signal.SIGKILL)
        psutil.wait_procs(dead[:-1], 10)
    killed = planned[4].plan
    assert book(home).editions()[4].end is None, "it died on its way"

    with worker(home):
        editions = wait_for(home, ended=5, seconds=1800)
        assert editions[4].plan == killed, "resumed by the next slot's run, as the same edition"
    subprocess.run(aot(home, "pool"), cwd=ROOT, env=CLEAN, check=True, timeout=300)

    # The run that has finished the fifth goes on with its own edition, and outlives its worker. Two at once: refused.
    command = aot(home, "run", str(ROOT / "configs" / "smoke.toml"), "--set", SERIES, "--edition", MISSED)
    deadline = time.monotonic() + 1800
    while (made := subprocess.run(command, cwd=ROOT, env=CLEAN, capture_output=True, text=True)).returncode != 0:
        assert "is being run by another process on this home; wait for it" in " ".join(made.stderr.split()), made
        assert time.monotonic() < deadline
        time.sleep(10)
    (made_up,) = (edition for edition in book(home).editions() if edition.plan.slot == f"{MISSED}Z")
    assert made_up.end is not None
    assert any("before the newest" in line for line in made_up.plan.told)
