"""What packages promise us by more than their public interface: one test a package, named after the promise.

`make lock` takes newer versions; one that breaks a promise is seen here, in seconds and by name, and not by a schedule
that never fires or a trainer whose override nobody calls. That they do it well is tested where we drive them.
"""

import importlib
import inspect
import json
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from prefect.settings import (
    PREFECT_FLOWS_HEARTBEAT_FREQUENCY,
    PREFECT_SERVER_API_PORT,
    PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE,
    PREFECT_UI_API_URL,
    temporary_settings,
)

from aot_core.tracking import moved
from aot_core.tracking.database import open_client
from flows.heartbeat import SECONDS, job_environment

SERVER = """
import asyncio, json
from prefect.client.orchestration import PrefectClient
from prefect.server.api.server import create_app
from prefect.server.services.scheduler import schedule_deployments
from prefect.workers.process import ProcessJobConfiguration, ProcessWorker
from flows.heartbeat import job_environment

async def main():
    app = create_app(ephemeral=True)
    async with app.router.lifespan_context(app), PrefectClient(app) as client:
        api = client._client
        flow = (await api.post("/flows/", json={"name": "due"})).raise_for_status().json()
        schedules = [{"schedule": {"cron": "* * * * *"}, "active": True}]
        deployment = {"name": "due", "flow_id": flow["id"], "schedules": schedules}
        (await api.post("/deployments/", json=deployment)).raise_for_status()
        await schedule_deployments()
        runs = (await api.post("/flow_runs/count", json={})).raise_for_status().json()
        pool = ProcessWorker.get_default_base_job_template()
        pool["variables"]["properties"]["env"]["default"] = {"AOT_STORE": "s3://aot/store"}
        given = {"env": job_environment()}
        job = await ProcessJobConfiguration.from_template_and_values(pool, given, client=client)
        print(json.dumps({"runs": runs, "environment": job.env}))

asyncio.run(main())
"""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What Prefect's server and a worker's first step make of a deployment, in a process of their own."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    environment |= {
        "PREFECT_HOME": str(tmp_path_factory.mktemp("prefect")),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    }
    done = subprocess.run([sys.executable, "-c", SERVER], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_fastapi_and_sqlalchemy_carry_prefects_server_and_its_scheduler(served: dict[str, Any]) -> None:
    """FastAPI 0.151 kept Prefect 3.8's server from starting; with SQLAlchemy 2.1 that one's scheduler made no run."""
    assert served["runs"] > 0


def test_prefect_adds_a_deployments_environment_to_its_pools(served: dict[str, Any]) -> None:
    assert served["environment"] == {"AOT_STORE": "s3://aot/store", **job_environment()}


def test_prefect_reads_our_settings_under_their_names() -> None:
    storage = "prefect.server.concurrency.lease_storage.filesystem"
    given = {
        PREFECT_FLOWS_HEARTBEAT_FREQUENCY: str(SECONDS),
        PREFECT_SERVER_API_PORT: "4242",
        PREFECT_UI_API_URL: "http://127.0.0.1:4242/api",
        PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE: storage,
    }
    code = "import sys, prefect.settings as s; print(*(getattr(s, name).value() for name in sys.argv[1:]))"
    command = [sys.executable, "-c", code, *(setting.name for setting in given)]
    environment = os.environ | {setting.name: value for setting, value in given.items()}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == list(given.values())
    assert hasattr(importlib.import_module(storage), "ConcurrencyLeaseStorage")
    with pytest.raises(ValueError, match="30"), temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: SECONDS - 1}):
        pass  # the least that is allowed


def test_trl_calls_what_our_trainer_overrides() -> None:
    from trl.trainer.grpo_trainer import GRPOTrainer

    from aot_core.defender.round_trainer import RoundTrainer

    stock = inspect.getsource(GRPOTrainer)
    ours = {
        name: function
        for kind in RoundTrainer.__mro__[: RoundTrainer.__mro__.index(GRPOTrainer)]
        for name, function in vars(kind).items()
        if inspect.isfunction(function) and name in vars(GRPOTrainer) and name != "__init__"
    }
    assert {"_generate_and_score_completions", "_calculate_rewards", "_prepare_inputs", "_tokenize_prompts"} <= set(
        ours
    )
    for name, function in ours.items():
        assert f".{name}(" in stock or name in ("training_step", "compute_loss", "log"), f"nobody calls {name}"
        theirs = inspect.signature(getattr(GRPOTrainer, name)).parameters
        kinds = {parameter.kind for parameter in inspect.signature(function).parameters.values()}
        passed_on = inspect.Parameter.VAR_POSITIONAL in kinds or inspect.Parameter.VAR_KEYWORD in kinds
        assert passed_on or list(inspect.signature(function).parameters) == list(theirs), name
    for attribute in ("_buffered_inputs", "_step", "_metrics", "_entropy_bonus_enabled"):
        assert f"self.{attribute}" in stock, f"{attribute} is gone"


def test_mlflow_ends_a_dead_processs_run_from_outside_and_keeps_params(tmp_path: Path) -> None:
    address = f"sqlite:///{tmp_path / 'mlflow.db'}"
    code = f"import os, mlflow; mlflow.set_tracking_uri('{address}'); run = mlflow.start_run(); "
    code += "mlflow.log_param('seed', 0); print(run.info.run_id, flush=True); os.kill(os.getpid(), 9)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False)
    client, run = MlflowClient(address), done.stdout.strip()
    assert client.get_run(run).info.status == "RUNNING", done.stderr
    with pytest.raises(MlflowException):
        client.log_param(run, "seed", 1)
    client.set_terminated(run, "KILLED")
    assert client.get_run(run).info.status == "KILLED" and client.get_run(run).data.params == {"seed": "0"}
    client.create_registered_model("defender")
    for version in ("1", "2"):
        client.create_model_version("defender", str(tmp_path), run)
        client.set_registered_model_alias("defender", "champion", version)
    assert str(client.get_model_version_by_alias("defender", "champion").version) == "2", "one alias, one version"


def test_mlflow_keeps_addresses_where_a_moved_home_looks_for_them(tmp_path: Path) -> None:
    """`aot_core.tracking.moved` writes them anew, by SQL: MLflow has no call for it."""
    file = tmp_path / "mlflow.db"
    open_client(f"sqlite:///{file}")
    with closing(sqlite3.connect(file)) as database:
        for table, column in moved.ADDRESSES.items():
            assert column in {row[1] for row in database.execute(f"PRAGMA table_info({table})")}, table
        tables = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        columns = {(table, row[1]) for table in tables for row in database.execute(f"PRAGMA table_info({table})")}
    named = {(table, column) for table, column in columns if column.endswith(("_location", "artifact_uri"))}
    of_a_server = {("workspaces", "trace_archival_location")}
    assert named == set(moved.ADDRESSES.items()) | of_a_server, "another place to follow"
