"""Two editions by `aot run`: the second begins from the champion and ends over its budget; `aot trend` tells both."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock

from aot_core.series.book import SeriesBook
from aot_core.store import LocalStore
from aot_core.tracking import registry
from aot_core.tracking.database import open_client

ROOT = Path(__file__).parents[2]
CLEAN = {key: value for key, value in os.environ.items() if not key.startswith(("PREFECT_", "MLFLOW_TRACKING"))}
pytestmark = pytest.mark.timeout(1800)


def aot(home: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "aot_core", *arguments, "--home", str(home)]
    return subprocess.run(command, cwd=ROOT, env=CLEAN, capture_output=True, text=True, check=False)


def said(done: "subprocess.CompletedProcess[str]") -> str:
    """What was said, without the terminal's line breaks."""
    return " ".join(done.stderr.split())


def test_the_second_edition_goes_on_from_the_champion_within_its_budget(tmp_path: Path) -> None:
    # The margin: eight questions are no exam of the clean scenes, and a champion is wanted.
    run = ("run", "configs/smoke.toml", "--set", "series.name=weekly", "--set", "promotion.gate.clean_margin=1.0")
    first = aot(tmp_path, *run)
    assert first.returncode == 0, first.stderr
    assert "series weekly, edition 1, from aot-tiny-vl" in first.stderr
    second = aot(tmp_path, *run, "--set", "series.budget.stages=1")
    assert second.returncode == 0, second.stderr
    assert "edition 2, from version 1" in second.stderr
    assert "series.budget.stages = 1 is used up: the edition ends here" in " ".join(second.stderr.split())

    one, two = SeriesBook(LocalStore(tmp_path / "store"), "weekly").editions()
    assert one.end is not None and two.end is not None
    assert one.end.outcome.startswith("promoted: there is no champion yet")
    assert (two.plan.defender, two.plan.defender_version) == (one.end.defender, "1")
    assert (two.plan.bank, two.plan.reference, two.plan.exam) == (one.end.bank, one.end.dataset, one.end.dataset)
    assert (two.end.rounds, two.end.stages, len(two.end.attackers)) == (0, 1, 1), "it has trained an Attacker alone"
    assert two.end.defender == one.end.defender and two.end.version == "1", "none was trained: the champion stays"
    assert one.end.exam.keys() == two.end.exam.keys() and one.end.exam == two.end.exam, "asked with the same noise"
    uri = f"sqlite:///{tmp_path / 'mlflow' / 'mlflow.db'}"
    champion = registry.get_champion(uri)
    assert champion is not None and champion[1]["aot.series"] == "weekly" and champion[1]["aot.edition"] == "1"

    told = json.loads(aot(tmp_path, "trend", "--json").stdout)
    assert [line["plan"]["number"] for line in told["editions"]] == [1, 2]
    assert told["editions"][1]["end"]["over_budget"] == "series.budget.stages = 1 is used up"
    assert "version 1" in aot(tmp_path, "trend", "weekly").stdout
    unknown = aot(tmp_path, "trend", "monthly")
    assert unknown.returncode == 2 and "this store holds weekly" in unknown.stderr
    missing = aot(tmp_path, *run, "--edition", "7")
    assert missing.returncode == 2 and "has 2 editions, so the next is 3" in missing.stderr

    # A picture of the newest bank is gone, and somebody else is running the series: planned, told, and refused.
    assert two.end.bank is not None
    bank = tmp_path / "store" / "bank" / two.end.bank.uri.rpartition("/")[2]
    next((bank / "files" / "images").iterdir()).unlink()
    with FileLock(tmp_path / "locks" / "series-weekly.lock"):
        refused = aot(tmp_path, *run)
    assert refused.returncode != 0 and "Traceback" not in refused.stderr
    assert "an edition of series 'weekly' is being run by another process on this home" in said(refused)
    three = SeriesBook(LocalStore(tmp_path / "store"), "weekly").editions()[2]
    assert three.end is None and three.plan.bank != two.end.bank
    assert any("gone or damaged" in line for line in three.plan.told)


def test_a_champion_of_another_base_is_refused_before_anything_is_planned(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path / 'mlflow' / 'mlflow.db'}"
    client = open_client(uri)
    client.create_registered_model("aot-defender")
    tags = {
        "aot.artifact_uri": f"aot://defender_round/{'0' * 64}",
        "aot.artifact_sha256": "0" * 64,
        "aot.base": "aot-tiny-vl",
        "aot.lineage.base": f"aot-tiny-vl {'a' * 64}",
    }
    version = client.create_model_version("aot-defender", source=str(tmp_path), tags=tags).version
    client.set_registered_model_alias("aot-defender", "champion", str(version))
    refused = aot(tmp_path, "run", "configs/smoke.toml", "--set", "series.name=weekly")
    assert refused.returncode == 2 and "Traceback" not in refused.stderr
    assert "champion aot-defender 1 was trained from 'aot-tiny-vl' (aaaaaaaaaaaa)" in said(refused)
    assert SeriesBook(LocalStore(tmp_path / "store"), "weekly").editions() == []
    again = aot(tmp_path, "run", "configs/smoke.toml", "--set", "series.name=weekly", "--from", "curate")
    assert again.returncode == 2 and "name the edition to rerun with --edition N" in said(again)
