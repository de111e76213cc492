"""A poisoned edition by `aot run`: refused, told why, and the next one begins from the old champion, and says so."""

import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from aot_core.contracts.scene import Sample
from aot_core.data.dataset import SCHEMA, TABLE, write_manifest
from aot_core.series.book import SeriesBook
from aot_core.store import LocalStore
from aot_core.tracking import registry

ROOT = Path(__file__).parents[2]
CLEAN = {key: value for key, value in os.environ.items() if not key.startswith(("PREFECT_", "MLFLOW_TRACKING"))}
POISON = """
from aot_core.defender.rewards import is_right

def wrong(batch):
    return [float(not is_right(answered)) for answered in batch]
"""
SERIES = (
    "series.name=weekly",
    "series.attacker=newest",
    "prepare_data.splits.evaluate=60",
    "evaluate.limit=60",
    "promotion.gate.min_items=30",
)
POISONED = (
    'defender_round.rewards=[{name = "poison:wrong", weight = 1.0}]',
    "defender_round.generations=8",
    "defender_round.prompts=8",
    "defender_round.learning_rate=1e-3",
)
pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400)]


def aot_run(home: Path, modules: Path, *overrides: str) -> "subprocess.CompletedProcess[str]":
    chosen = [part for override in (*SERIES, *overrides) for part in ("--set", override)]
    command = [sys.executable, "-m", "aot_core", "run", "configs/smoke.toml", *chosen, "--home", str(home)]
    environment = CLEAN | {"PYTHONPATH": f"{ROOT}{os.pathsep}{modules}"}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


def run(home: Path, modules: Path, *overrides: str) -> str:
    """What `aot run` says of an edition, in one line."""
    done = aot_run(home, modules, *overrides)
    assert done.returncode == 0, done.stderr
    return " ".join(done.stderr.split())


def shuffle_labels(store: LocalStore, work: Path) -> None:
    """What a broken export does: the newest data set's answers are dealt anew among the questions of as many options.
    Its hashes are in order, so the store has nothing to object to."""
    record = max((one for one in store.records() if one.stage == "prepare_data"), key=lambda one: one.started_at)
    shutil.copytree(store.fetch(record.artifact), work)
    dealt = random.Random(0)
    for path in sorted(work.rglob(TABLE)):
        table = pq.read_table(path)
        rows = table.to_pylist()
        for options in {len(row["options"]) for row in rows}:
            alike = [row for row in rows if len(row["options"]) == options]
            for row, answer in zip(alike, dealt.sample([row["answer"] for row in alike], len(alike)), strict=True):
                sample = Sample.model_validate_json(row["record"])
                question = sample.question.model_copy(update={"answer": answer})
                row["answer"] = answer
                row["record"] = sample.model_copy(update={"question": question}).model_dump_json()
        pq.write_table(table.from_pylist(rows, schema=SCHEMA), path)
    write_manifest(work)
    store.delete(record)
    artifact = store.put(record.stage, record.key, work)
    store.seal(record.model_copy(update={"artifact": artifact}))


def test_a_poisoned_edition_is_refused_and_the_next_begins_from_the_old_champion(tmp_path: Path) -> None:
    home, modules = tmp_path / "home", tmp_path / "modules"
    modules.mkdir()
    (modules / "poison.py").write_text(POISON)
    run(home, modules)
    poisoned = run(home, modules, *POISONED)
    assert "edition 2, from version 1" in poisoned and "refused by the gate, the champion stays" in poisoned
    after = run(home, modules, "series.budget.stages=1")

    one, two, three = SeriesBook(LocalStore(home / "store"), "weekly").editions()
    assert one.end is not None and two.end is not None and one.end.promoted and not two.end.promoted
    assert two.end.figures["strict/clean"] < one.end.figures["strict/clean"] - 0.3, "it has learned to be wrong"
    decisions = [json.loads(file.read_text()) for file in (home / "campaigns").glob("*/decision.json")]
    (decision,) = (one for one in decisions if one["challenger"] == two.end.version and one["champion"])
    lines = {line["name"]: line["passed"] for line in decision["tests"]}
    assert not lines["not_worse/clean"] and not lines["regression/fixed_exam"], "by the first edition's questions, too"

    champion = registry.get_champion(f"sqlite:///{home / 'mlflow' / 'mlflow.db'}")
    assert champion is not None and champion[0] == "1"
    assert (three.plan.defender, three.plan.defender_version) == (one.end.defender, "1")
    (told,) = [line for line in three.plan.told if "edition 2" in line]
    assert told.startswith("edition 2 was not promoted: ") and told.endswith("begins from version 1, the champion")
    assert "this one begins from version 1, the champion" in after


def test_shuffled_labels_are_told_and_refused(tmp_path: Path) -> None:
    home, modules, store = tmp_path / "home", tmp_path, LocalStore(tmp_path / "home" / "store")
    run(home, modules)
    run(home, modules, "stop_after=prepare_data")
    shuffle_labels(store, tmp_path / "shuffled")

    stopped = aot_run(home, modules, "series.on_drift=stop")
    assert stopped.returncode != 0 and "Traceback" not in stopped.stderr
    assert "labels may be wrong, or pictures of another kind" in " ".join(stopped.stderr.split())
    assert len([one for one in store.records() if one.stage == "defender_round"]) == 1, "nothing was trained"

    poisoned = run(home, modules, *POISONED[1:])
    assert "labels may be wrong" in poisoned and "refused by the gate, the champion stays" in poisoned
    one, two = SeriesBook(store, "weekly").editions()
    assert one.end is not None and two.end is not None and one.end.promoted and not two.end.promoted
    (report,) = home.glob(f"campaigns/*{two.end.campaign[:12]}/report.md")
    assert "**Warning:** the Defender that this edition begins with is right on" in report.read_text()
    assert "this one begins from version 1, the champion" in run(home, modules, "series.budget.stages=1")
