"""A campaign through a team's servers, each of which dies and comes back while it runs."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from aot_core.contracts.summary import CampaignSummary

pytestmark = [pytest.mark.services, pytest.mark.timeout(1800)]

ROOT = Path(__file__).parents[2]


def test_nobody_is_let_in_without_a_name(team: Any) -> None:
    anonymous = httpx.post(f"{team.mlflow_url}/api/2.0/mlflow/experiments/search", json={"max_results": 1})
    assert anonymous.status_code == 401
    wrong = httpx.get(f"{team.prefect_url}/flows/count", auth=("aot", "wrong"))
    assert httpx.post(f"{team.prefect_url}/flows/count", json={}).status_code == 401 and wrong.status_code != 200
    assert httpx.post(f"{team.prefect_url}/flows/count", json={}, auth=("aot", "correct-horse-battery")).is_success


def test_a_campaign_survives_the_restart_of_every_server(team: Any, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "aot_core.cli", "run", "configs/smoke.toml", "--home", str(tmp_path / "home")]
    command += [
        "--launcher",
        "subprocess",
        "--store",
        "s3://bucket/team",
        "--set",
        f"run.s3.endpoint_url={team.s3_url}",
    ]
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("PREFECT_", "MLFLOW_TRACKING"))}
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=clean | team.client_environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    said: list[str] = []
    disturbances = {
        "warm_start_attacker": team.mlflow.restart,
        "warm_start_defender": team.prefect.restart,
        "attacker_round": team.postgres.restart,
        "curate": lambda: pause(team.s3.process.pid),
    }
    for line in process.stdout:
        said.append(line)
        for stage in [stage for stage in disturbances if "running" in line and stage in line]:
            disturbances.pop(stage)()
    assert process.wait() == 0, "".join(said)
    assert not disturbances, "each happened"
    (file,) = (tmp_path / "home" / "campaigns").glob("smoke-*/summary.json")
    summary = CampaignSummary.model_validate_json(file.read_bytes())
    assert summary.status == "finished" and summary.mlflow_uri == team.mlflow_url and summary.aliases == ("champion",)
    assert not list((tmp_path / "home" / "store").glob("*")), "the store is the bucket"
    pages = team.objects.get_paginator("list_objects_v2").paginate(Bucket="bucket")
    keys = [item["Key"] for page in pages for item in page.get("Contents", [])]
    assert sum(key.startswith("team/") and key.endswith("/record.json") for key in keys) == 8
    assert any(key.startswith("mlflow/") and key.endswith(".png") for key in keys), "MLflow's artifacts too"
    assert not [key for key in keys if key.startswith("team/.locks/") and not key.endswith(".probe")]
    with team.connect("mlflow") as connection, connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM runs WHERE status = 'FINISHED'")
        assert cursor.fetchone()[0] == 3, "the campaign, its start and its round"
    with team.connect("prefect") as connection, connection.cursor() as cursor:
        cursor.execute("SELECT state_type FROM flow_run")
        assert cursor.fetchall() == [("COMPLETED",)]


def pause(pid: int) -> None:
    """moto forgets everything when it dies, so it is not killed but does not answer for a while."""
    os.kill(pid, signal.SIGSTOP)
    time.sleep(8)
    os.kill(pid, signal.SIGCONT)
