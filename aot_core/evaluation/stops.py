"""The gate's hard stops: what no figure can make up for, looked into one by one.

Each takes what it judges and gives a `HardStop` that says what was found, also where nothing stops.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import get_args

from aot_core.contracts.artifact import StageRecord
from aot_core.contracts.promotion import GateSettings, HardStop
from aot_core.contracts.scene import Split
from aot_core.data.dataset import iter_image_hashes
from aot_core.evaluation.items import Item

_GUARD = "guard/report.json"


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
        return HardStop(name="data_guard", stopped=True, told=f"the data set has no {_GUARD}: nobody checked it")
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
            gaps.append(f"{record.stage}: made by code that no commit names ({record.git_commit or 'no checkout'})")
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


def seen_in_training(dataset: Path, lessons: Iterable[Path]) -> HardStop:
    """Test pictures, by the sha256 of their bytes, among those that anything was trained on.

    Args:
        dataset: what `prepare_data` made: its `evaluate` split is the test, all else was trained on.
        lessons: the curated data sets of all rounds.
    """
    tested: set[str] = set()
    trained: set[str] = set()
    for split in get_args(Split):
        into = tested if split == "evaluate" else trained
        into.update(sha256 for _, sha256 in iter_image_hashes(dataset, split))
    for folder in lessons:
        trained.update(sha256 for _, sha256 in iter_image_hashes(folder))
    common = len(tested & trained)
    told = f"{common} of {len(tested)} test pictures stand among {len(trained)} training pictures"
    return HardStop(name="seen_in_training", stopped=common > 0, told=told)
