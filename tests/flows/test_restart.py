"""A campaign that is moved with its home, and made anew from a stage on, by `aot run`; its owner, note and tags."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from mlflow import MlflowClient

from aot_core.contracts.summary import CampaignSummary
from aot_core.tracking import registry

ROOT = Path(__file__).parents[2]
CLEAN = {key: value for key, value in os.environ.items() if not key.startswith(("PREFECT_", "MLFLOW_TRACKING"))}
pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400)]


def aot(home: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "aot_core", *arguments, "--home", str(home)]
    return subprocess.run(
        command, cwd=ROOT, env=CLEAN | {"COLUMNS": "250"}, capture_output=True, text=True, check=False
    )


def summaries(home: Path) -> dict[str, CampaignSummary]:
    """By whether they are a restart: its moment, or nothing."""
    found = [CampaignSummary.model_validate_json(file.read_bytes()) for file in home.glob("campaigns/*/summary.json")]
    return {(one.config["restart"] or {"asked_at": ""})["asked_at"]: one for one in found}


def reused(summary: CampaignSummary) -> list[tuple[str, int, bool]]:
    return [(step.record.stage, step.round, step.reused) for step in summary.steps]


def test_a_moved_home_goes_on_and_a_restart_makes_anew_what_follows(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "moved here"
    labels = ("--owner", "ada", "--note", 'the "first" try', "--tag", "team=vision", "--tag", "ticket=14")
    first = aot(old, "run", "configs/smoke.toml", *labels)
    assert first.returncode == 0, first.stderr
    (made,) = summaries(old).values()
    shutil.move(old, new)

    again = aot(new, "run", "configs/smoke.toml", *labels)
    assert again.returncode == 0, again.stderr
    assert not old.exists(), "nothing is written where the home was"
    (moved,) = summaries(new).values()
    assert (moved.key, moved.mlflow_run_id) == (made.key, made.mlflow_run_id), "the same campaign, the same run"
    assert all(was for _, _, was in reused(moved))
    uri = f"sqlite:///{new / 'mlflow' / 'mlflow.db'}"
    client = MlflowClient(uri, registry_uri=uri)
    run = client.get_run(made.mlflow_run_id)
    assert run.info.artifact_uri is not None and run.info.artifact_uri.startswith(new.as_uri())
    assert (new / "mlflow/artifacts/aot" / made.mlflow_run_id / "artifacts/report.html").is_file()
    assert run.data.tags["aot.owner"] == "ada" and run.data.tags["team"] == "vision"
    note = run.data.tags["mlflow.note.content"]
    assert note.startswith('the "first" try') and note.count("What was checked of the data") == 1
    champion = registry.get_champion(uri)
    assert champion is not None and champion[1]["ticket"] == "14" and champion[1]["aot.owner"] == "ada"
    exported = aot(new, "export", str(tmp_path / "exported"))
    assert exported.returncode == 0, exported.stderr
    told = aot(new, "status").stdout
    assert "owner: ada" in told and "team: vision" in told and 'the "first" try' in told
    assert "ada" in aot(new, "history").stdout

    before = {path: path.read_bytes() for path in (new / "store").glob("*/*/record.json")}
    restarted = aot(new, "run", "configs/smoke.toml", "--from", "curate")
    assert restarted.returncode == 0, restarted.stderr
    assert "rerunning from curate (round 1) on; earlier results are kept" in restarted.stderr
    assert all(path.read_bytes() == content for path, content in before.items()), "nothing is deleted or replaced"
    both = summaries(new)
    assert both[""].steps == moved.steps and len(both) == 2
    (asked_at,) = both.keys() - {""}
    assert [(stage, was) for stage, _, was in reused(both[asked_at])] == [
        ("prepare_data", True),
        ("warm_start_attacker", True),
        ("warm_start_defender", True),
        ("evaluate", True),
        ("attacker_round", True),
        ("curate", False),
        ("defender_round", False),
        ("evaluate", False),
    ]
    remade = [step.record.identity.inputs.get("remade") for step in both[asked_at].steps]
    assert remade == [None] * 5 + [asked_at] * 3
    tags = client.get_run(both[asked_at].mlflow_run_id).data.tags
    assert tags["aot.restart"] == f"curate:1 {asked_at}"

    # One that was killed goes on: the same moment, and what was made of it is reused.
    (file,) = (f for f in new.glob("campaigns/*/summary.json") if asked_at in f.read_text())
    file.write_text(json.dumps(json.loads(file.read_text()) | {"status": "failed"}))
    went_on = aot(new, "run", "configs/smoke.toml", "--from", "curate")
    assert went_on.returncode == 0, went_on.stderr
    assert summaries(new).keys() == both.keys() and all(was for _, _, was in reused(summaries(new)[asked_at]))

    for asked, why in (("curate:2", "curate runs in round 1 of"), ("cure", "no such stage; give one of prepare_data")):
        refused = aot(new, "run", "configs/smoke.toml", "--from", asked)
        assert refused.returncode == 2 and why in refused.stderr
