"""A campaign's flow run has the tag that automations look for; its tasks have none."""

import json
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

from flows.heartbeat import TAG

ROOT = Path(__file__).parents[2]
CLEAN = {key: value for key, value in os.environ.items() if not key.startswith(("PREFECT_", "MLFLOW_TRACKING"))}


def test_a_stage_asks_for_no_tag_s_slot(tmp_path: Path) -> None:
    """With tags every task asks the server for a slot of each, and fails where the server is just being restarted."""
    command = [sys.executable, "-m", "aot_core", "run", "configs/smoke.toml", "--home", str(tmp_path)]
    command += ["--set", "stop_after=prepare_data", "--set", "prepare_data.effectiveness.enabled=false"]
    subprocess.run(command, cwd=ROOT, env=CLEAN, check=True, capture_output=True)
    with closing(sqlite3.connect(tmp_path / "prefect" / "prefect.db")) as database:
        flows = [json.loads(tags) for (tags,) in database.execute("SELECT tags FROM flow_run")]
        tasks = [json.loads(tags) for (tags,) in database.execute("SELECT tags FROM task_run")]
    assert [TAG in tags for tags in flows] == [True]
    assert tasks == [[]]
