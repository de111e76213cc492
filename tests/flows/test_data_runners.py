"""`aot data map` on Dask and on Ray makes the very data set that processes make. The extras: `make test-ray`."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from aot_core.store import LocalStore

pytestmark = [pytest.mark.ray, pytest.mark.timeout(3600)]

ROOT = Path(__file__).parents[2]
CLEAN = {key: value for key, value in os.environ.items() if not key.startswith(("PREFECT_", "RAY_"))}
SHARDS = ["--set", "prepare_data.shard_size=12", "--set", "run.threads=1"]
"""Twelve of the smoke campaign's samples a shard: several tasks for two workers."""


def mapped(home: Path, runner: str) -> tuple[str, list[str]]:
    """The artifact that a user's command has made, and its log."""
    config = str(ROOT / "configs" / "smoke.toml")
    command = [sys.executable, "-m", "aot_core", "data", "map", config, *SHARDS, "--runner", runner, "--workers", "2"]
    environment = CLEAN | {"PYTHONPATH": str(ROOT), "PREFECT_LOGGING_LEVEL": "INFO", "RAY_USAGE_STATS_ENABLED": "0"}
    done = subprocess.run(
        [*command, "--home", str(home)], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (record,) = LocalStore(home / "store").records()
    return record.artifact.sha256, (done.stdout + done.stderr).splitlines()


@pytest.fixture(scope="module")
def by_processes(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The hash of the data set's manifest, as two processes made it."""
    return mapped(tmp_path_factory.mktemp("processes"), "processes")[0]


@pytest.mark.parametrize(("runner", "sign"), [("dask", "distributed"), ("ray", "Ray")])
def test_a_cluster_makes_what_processes_make(runner: str, sign: str, by_processes: str, tmp_path: Path) -> None:
    sha256, log = mapped(tmp_path, runner)
    assert sha256 == by_processes
    assert any(sign in line for line in log), "the runner itself says that it started"
    assert sum("Finished in state Completed" in line and "Task run" in line for line in log) >= 4, "a task a shard"
