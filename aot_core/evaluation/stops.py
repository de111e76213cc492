"""The gate's hard stops: what no figure can make up for, looked into one by one.

Each takes what it judges and gives a `HardStop` that says what was found, also where nothing stops.
"""

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from aot_core.contracts.artifact import StageRecord
from aot_core.contracts.promotion import GateSettings, HardStop
from aot_core.contracts.scene import Split
from aot_core.data.bank import is_held_back, question_key
from aot_core.data.dataset import iter_image_hashes, iter_rows
from aot_core.evaluation.items import Item

_GUARD = "guard/report.json"
_COLUMNS = ["split", "source_id", "source_hash", "question", "image_sha256", "edited_sha256"]


def unreadable_answers(items: Sequence[Item], settings: GateSettings) -> HardStop:
    """Answers that name no option, over all conditions: a model that forgot how to answer."""
    letters = [letter for item in items for letter in item.letters]
    share = sum(letter is None for letter in letters) / len(letters) if letters else 1.0
    told = f"{100 * share:.1f} % of {len(letters)} answers name no option (at most {100 * settings.max_unreadable:g} %)"
    if cut_off := sum(item.cut_off for item in items):
        told += (
            f"; {cut_off} of them were cut off at the limit on new tokens (finish_reason length): raise "
            "max_new_tokens where the model thinks before it answers"
        )
    return HardStop(name="unreadable_answers", stopped=share > settings.max_unreadable, told=told)


def missing_figures(figures: Mapping[str, float]) -> HardStop:
    """A figure that is no number: somewhere a loss or a share broke."""
    wrong = sorted(name for name, value in figures.items() if not math.isfinite(value))
    told = f"not finite: {', '.join(wrong)}" if wrong else f"all {len(figures)} figures are finite"
    return HardStop(name="missing_figures", stopped=bool(wrong) or not figures, told=told)


def data_guard(dataset: Path) -> HardStop:
    """The data set's own checks, as `prepare_data` left them beside it."""
    report = dataset / _GUARD
    if not report.is_file():
        return HardStop(name="data_guard", stopped=True, told=f"the data set has no {_GUARD}: it was never checked")
    found = json.loads(report.read_text())["expectations"]
    failed = [f"{one['expectation']}({one['column']})" for one in found if not one["success"]]
    told = f"the data break {', '.join(failed)}" if failed else f"all {len(found)} expectations of the data hold"
    return HardStop(name="data_guard", stopped=bool(failed) or not found, told=told)


def lineage_gaps(records: Sequence[StageRecord], needed: Iterable[str], settings: GateSettings) -> HardStop:
    """Every stage that led to the Defender must have a record, every input a hash or a name, and, by config, every
    record a commit."""
    gaps = [f"no record of {stage}" for stage in needed if stage not in {record.stage for record in records}]
    for record in records:
        empty = [name for name, value in record.identity.inputs.items() if value == ""]
        gaps += [f"{record.stage}: input {name} has neither hash nor name" for name in empty]
        if settings.require_commit and (not record.git_commit or record.git_commit.endswith("-dirty")):
            gaps.append(f"{record.stage}: made by code without a commit ({record.git_commit or 'no checkout'})")
    told = "; ".join(dict.fromkeys(gaps)) if gaps else f"all {len(records)} stages have records and named inputs"
    return HardStop(name="lineage", stopped=bool(gaps), told=told)


def benchmarks_seen(figures: Mapping[str, float]) -> HardStop:
    """Benchmark questions about pictures that look like training pictures (`benchmarks.contamination`).

    Args:
        figures: of the challenger's evaluation: `benchmarks/NAME/seen_in_training`.
    """
    seen = {name.split("/")[1]: int(n) for name, n in figures.items() if name.endswith("/seen_in_training") and n}
    where = ", ".join(f"{count} of {name}" for name, count in sorted(seen.items()))
    told = f"questions about pictures that look like training pictures: {where or 'none'}"
    return HardStop(name="benchmarks_seen", stopped=bool(seen), told=told)


def seen_in_training(
    dataset: Path, lessons: Iterable[Path], bank: Path | None = None, held_back: float = 0.0
) -> HardStop:
    """Test pictures, by the sha256 of their bytes, among those that anything was trained on, and questions of the
    regression suite, by source picture and text, among the lessons' questions.

    Args:
        dataset: what `prepare_data` made: its `evaluate` split is the test, all else was trained on.
        lessons: the curated data sets of all rounds.
        bank: its `evaluate` split is the regression suite, whose edited pictures are test pictures too; its `train`
            split was trained on. None: there is none.
        held_back: the share of the questions that was kept out of the lessons.
    """
    tested: set[str] = set()
    trained: set[str] = set()
    asked: set[str] = set()
    taught: set[str] = set()
    for split in get_args(Split):
        into = tested if split == "evaluate" else trained
        into.update(sha256 for _, sha256 in iter_image_hashes(dataset, split))
    for row in _rows(bank) if bank else ():
        if row["split"] == "evaluate":
            tested.add(row["edited_sha256"])
            asked.add(_key(row))
        else:
            trained.update(_pictures(row))
            taught.add(_key(row))
    for row in (row for folder in lessons for row in _rows(folder)):
        if not is_held_back(_key(row), held_back):
            trained.update(_pictures(row))
            taught.add(_key(row))
    common, known = len(tested & trained), len(asked & taught)
    told = f"{common} of {len(tested)} test pictures stand among {len(trained)} training pictures"
    if asked:
        told += f"; {known} of {len(asked)} questions of the regression suite stand among the lessons'"
    return HardStop(name="seen_in_training", stopped=common + known > 0, told=told)


def _rows(folder: Path) -> Iterator[dict[str, Any]]:
    return (row for rows in iter_rows(folder, _COLUMNS) for row in rows)


def _key(row: dict[str, Any]) -> str:
    return question_key(row["source_id"], row["source_hash"], row["question"])


def _pictures(row: dict[str, Any]) -> set[str]:
    """The sha256 of a sample's pictures."""
    return {row["image_sha256"], row["edited_sha256"]} - {None}
