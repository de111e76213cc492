"""What `aot store gc` takes and what it leaves, on a home with a registry of its own."""

import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from filelock import FileLock
from mlflow import MlflowClient
from typer.testing import CliRunner

from aot_core.commands.cli import app
from aot_core.commands.housekeeping import is_running
from aot_core.contracts.artifact import StageIdentity, StageRecord
from aot_core.contracts.summary import CampaignSummary, StageStep
from aot_core.home import Home
from aot_core.store import LocalStore
from aot_core.tracking.mlflow_tracking import ARTIFACT_SHA_TAG, ARTIFACT_URI_TAG

LONG_AGO = "2026-01-01T00:00:00+00:00"


def made(home: Home, seed: int, **inputs: str) -> StageRecord:
    folder = home.root / f"made-{seed}"
    folder.mkdir(parents=True)
    (folder / "file").write_text(str(seed))
    identity = StageIdentity(stage="curate", version=1, config={"seed": seed}, inputs=inputs)
    store = LocalStore(home.store)
    record = StageRecord(
        stage="curate", key=identity.key, identity=identity, artifact=store.put("curate", identity.key, folder),
        outputs={}, seconds=1, device="cpu", git_commit="", image_digest="", packages={}, started_at=LONG_AGO,
    )  # fmt: skip
    store.seal(record)
    return record


def summarise(home: Home, record: StageRecord, status: str, key: str) -> None:
    folder = home.campaign_folder("some", key)
    folder.mkdir(parents=True)
    now = datetime.now(UTC).isoformat()
    summary = CampaignSummary(name="some", key=key, config={}, started_at=now, updated_at=now)
    step = StageStep(round=0, record=record, reused=False)
    summary = summary.model_copy(update={"status": status, "steps": (step,)})
    (folder / "summary.json").write_text(summary.model_dump_json())


def left(home: Home) -> set[str]:
    return {record.key for record in LocalStore(home.store).records()}


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    """A home; the environment that the command sets for its process is put back."""
    before = dict(os.environ)
    home = Home(tmp_path / "home")
    home.create()
    yield home
    os.environ.clear()
    os.environ.update(before)


def test_registered_versions_and_running_campaigns_hold_what_they_were_made_of(home: Home) -> None:
    data = made(home, 0)
    champion = made(home, 1, dataset=data.artifact.sha256)
    running, died, finished = made(home, 2), made(home, 3), made(home, 4)
    client = MlflowClient(home.mlflow_uri, registry_uri=home.mlflow_uri)
    client.create_registered_model("aot-defender")
    tags = {ARTIFACT_URI_TAG: champion.artifact.uri, ARTIFACT_SHA_TAG: champion.artifact.sha256}
    client.create_model_version("aot-defender", source="file:///nowhere", tags=tags)
    summarise(home, running, "finished", "a" * 64)
    summarise(home, died, "running", "b" * 64)
    summarise(home, finished, "finished", "c" * 64)
    everything = left(home)
    with FileLock(home.lock_file(f"campaign-{'a' * 64}")):
        assert is_running(home, "a" * 64) and not is_running(home, "c" * 64)
        said = CliRunner().invoke(app, ["store", "gc", "--home", str(home.root)])
        assert said.exit_code == 0, said.output
        assert "--delete" in said.output and left(home) == everything, "it only says so unless told to delete"
        assert CliRunner().invoke(app, ["store", "gc", "--home", str(home.root), "--delete"]).exit_code == 0
    assert left(home) == {r.key for r in (data, champion, running, died)}


def test_a_store_that_nothing_serves_is_refused_in_a_line(home: Home) -> None:
    said = CliRunner().invoke(app, ["store", "gc", "--home", str(home.root), "--store", "ftp://x"])
    assert said.exit_code == 2 and "ftp://" in said.output
