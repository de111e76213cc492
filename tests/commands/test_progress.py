"""What a dry run says: which stages, how long each took, of a series and of a restart too."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from aot_core.commands.cli import app
from aot_core.commands.dry_run import stages_told
from aot_core.commands.progress import Durations, Slot, slots, time_left
from aot_core.contracts.artifact import ArtifactRef, StageIdentity, StageName, StageRecord
from aot_core.contracts.campaign import CampaignConfig
from aot_core.contracts.restart import Restart
from aot_core.contracts.series import EditionEnd, EditionPlan
from aot_core.contracts.summary import CampaignSummary, StageStep
from aot_core.home import Home
from aot_core.series.book import SeriesBook
from aot_core.store import LocalStore

CONFIG = CampaignConfig.model_validate({"name": "one", "rounds": 1})
STAGES: tuple[tuple[int, StageName], ...] = (
    (0, "prepare_data"), (0, "warm_start_attacker"), (0, "warm_start_defender"), (0, "evaluate"),
    (1, "attacker_round"), (1, "curate"), (1, "defender_round"), (1, "evaluate"),
)  # fmt: skip


def step(round_index: int, stage: StageName, seconds: float, store: LocalStore, folder: Path) -> StageStep:
    identity = StageIdentity(stage=stage, version=1, config={"seed": round_index}, inputs={})
    record = StageRecord(
        stage=stage, key=identity.key, identity=identity, artifact=store.put(stage, identity.key, folder), outputs={},
        seconds=seconds, device="cpu", git_commit="", image_digest="", packages={},
        started_at=f"2026-11-28T07:{round(seconds):02d}:00+00:00",
    )  # fmt: skip
    store.seal(record)
    return StageStep(round=round_index, record=record, reused=False)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """A home where the campaign ended, its stages one second longer each than the one before."""
    place = Home(tmp_path / "home")
    place.create()
    (tmp_path / "made").mkdir()
    store = LocalStore(place.store)
    steps = tuple(step(k, stage, 1.0 + i, store, tmp_path / "made") for i, (k, stage) in enumerate(STAGES))
    summary = CampaignSummary(
        name="one", key="a" * 64, config=CONFIG.model_dump(mode="json"), status="finished",
        started_at="2026-11-28T07:00:00+00:00", updated_at="2026-11-28T07:10:00+00:00", steps=steps,
    )  # fmt: skip
    folder = place.campaign_folder("one", summary.key)
    folder.mkdir(parents=True)
    (folder / "summary.json").write_text(summary.model_dump_json(), encoding="utf-8")
    return place


def verbs(lines: list[str]) -> list[str]:
    return [line.split()[3] for line in lines if " of " in line and "(" in line]


def test_each_stage_is_told_with_the_time_of_its_own_round(home: Home) -> None:
    lines = stages_told(CONFIG, home)
    assert verbs(lines) == ["reused"] * 8 and lines[-1] == "0 of 8 stages would run"
    assert "evaluate  (4.0 s last time)" in lines[3], "the first one, which meets no trained Attacker"
    assert "evaluate  (8.0 s last time)" in lines[7]


def test_a_round_that_was_never_run_takes_as_long_as_the_last_run_of_the_stage(home: Home) -> None:
    lines = stages_told(CONFIG.model_copy(update={"rounds": 2}), home)
    assert verbs(lines) == ["runs"] * 12, "another campaign"
    assert "round 2  evaluate  (8.0 s last time)" in lines[11]
    assert lines[-1] == "12 of 12 stages would run, about 1 min left"


def test_a_campaign_of_the_same_name_counts_before_others() -> None:
    summaries = [
        CampaignSummary(name=name, key=name * 64, config={}, started_at="", updated_at="", steps=(of,))
        for name, of in (("a", _plain("curate", 3.0, "2026-01-01")), ("b", _plain("curate", 50.0, "2026-01-02")))
    ]
    curate = Slot(1, "curate", 0)
    assert [Durations(summaries, name).of(curate) for name in ("a", "b", "c")] == [3.0, 50.0, 50.0]
    assert time_left([curate], Durations([], "a")) == "" and Durations([], "a").of(curate) is None


def test_cross_plays_two_evaluations_of_a_round_are_two_slots() -> None:
    found = slots([(0, "evaluate"), (1, "attacker_round"), (0, "evaluate")])
    assert [slot.number for slot in found] == [0, 0, 1]


def test_a_restart_makes_anew_from_its_stage_on(home: Home) -> None:
    restart = CONFIG.model_copy(update={"restart": Restart(stage="curate", round=1)})
    lines = stages_told(restart, home)
    assert verbs(lines) == ["reused"] * 5 + ["runs"] * 3
    assert lines[-1] == "3 of 8 stages would run, less than a minute left"


def _plain(stage: StageName, seconds: float, started_at: str) -> StageStep:
    identity = StageIdentity(stage=stage, version=1, config={}, inputs={})
    record = StageRecord(
        stage=stage, key=identity.key, identity=identity, outputs={}, seconds=seconds, device="cpu", git_commit="",
        artifact=ArtifactRef(uri=f"aot://{stage}/{identity.key}", sha256="e" * 64), image_digest="", packages={},
        started_at=started_at,
    )  # fmt: skip
    return StageStep(round=1, record=record, reused=False)


def dry(config: Path, home: Path, *more: str) -> str:
    result = CliRunner().invoke(app, ["run", str(config), "--home", str(home), "--dry-run", *more])
    assert result.exit_code == 0, result.stderr
    json.loads(result.stdout)
    return result.stderr


CONFIGS = Path(__file__).parents[2] / "configs"


def test_the_first_edition_keeps_a_bank_and_nothing_is_made(tmp_path: Path) -> None:
    told = dry(CONFIGS / "series.toml", tmp_path / "none")
    assert "series tiny, edition 1, from aot-tiny-vl" in told
    assert "round 1  bank  (never run on this home)" in told and "compare_data" not in told
    assert not list(tmp_path.iterdir())


def test_an_edition_after_a_champion_compares_its_data(tmp_path: Path) -> None:
    from mlflow import MlflowClient

    home = Home(tmp_path / "home")
    home.create()
    store = LocalStore(home.store)
    (tmp_path / "made").mkdir()
    defender, data = (
        step(1, stage, 1.0, store, tmp_path / "made").record.artifact for stage in ("defender_round", "prepare_data")
    )
    client = MlflowClient(home.mlflow_uri, registry_uri=home.mlflow_uri)
    client.create_registered_model("aot-defender")
    tags: dict[str, Any] = {
        "aot.artifact_uri": defender.uri, "aot.artifact_sha256": defender.sha256, "aot.base": "aot-tiny-vl",
    }  # fmt: skip
    client.create_model_version("aot-defender", source=str(tmp_path), tags=tags)
    client.set_registered_model_alias("aot-defender", "champion", "1")
    book = SeriesBook(store, "tiny")
    book.write_plan(EditionPlan(series="tiny", number=1, seed=1, lineage=("aot-tiny-vl",)))
    book.write_end(EditionEnd(number=1, campaign="k", outcome="promoted: x", version="1", dataset=data))
    told = dry(CONFIGS / "series.toml", home.root)
    assert "series tiny, edition 2, from version 1" in told
    assert "compare_data" in told and "bank" in told and "warm_start_defender" not in told
    assert len(book.editions()) == 1, "nothing was entered"
