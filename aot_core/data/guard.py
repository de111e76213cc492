"""The gate behind the data: a Great Expectations checkpoint that stops the campaign on bad data.

    data set on disk ----checks_frame----> one row a sample ----checkpoint----> report.json, report.html
                                                                           \\--> DataGuardError

What spans columns or files (truth, overlap, hashes, splits) is computed into plain columns first: Great
Expectations' own expectations over rows do not work on pandas. An expectation that failed and one that raised are
told apart: a guard that cannot look has not found the data good, and not found it bad either.
"""

import json
import logging
import os
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import sqrt
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined

from aot_core.contracts.scene import LETTERS, Box, Sample
from aot_core.data.dataset import images_of, manifest_hashes, read_samples, read_table, wrong_hashes
from aot_core.data.images import DataError
from aot_core.data.splits import SPLITS
from aot_core.data.truth import truth

if TYPE_CHECKING:
    from great_expectations.expectations.expectation import Expectation

LETTER_SIGMAS = 5.0
"""How many standard deviations a letter's share of the right answers may be off."""


class DataGuardError(DataError):
    """The data broke an expectation. Names every broken one, the column, and rows that break it."""


class GuardBrokenError(RuntimeError):
    """An expectation raised instead of giving a verdict: the guard is at fault, not the data."""


@dataclass(frozen=True)
class Verdict:
    """What came of one expectation."""

    expectation: str
    column: str
    why: str
    success: bool
    detail: str
    """The observed value, or how many rows break it and the first of them."""
    raised: str = ""
    """The message of the exception, where the expectation raised."""


def guard_dataset(folder: Path, min_ssim: float, report: Path) -> list[Verdict]:
    """Check a data set on disk and leave report.json and report.html in the folder `report`.

    Args:
        min_ssim: the localized SSIM below which no pair may be.

    Raises DataGuardError where an expectation fails, GuardBrokenError where one raises; the report is there first.
    """
    samples = read_samples(folder)
    frame = checks_frame(folder, samples)
    verdicts = validate(frame, data_expectations(min_ssim))
    write_report(report, verdicts, len(samples))
    raise_for(verdicts)
    return verdicts


def checks_frame(folder: Path, samples: Sequence[Sample]) -> pd.DataFrame:
    """A row a sample: the data set's flat columns, and what is checked of each sample computed beside them."""
    frame = read_table(folder).to_pandas().drop(columns=["record", "options", "edit_kinds"])
    wrong = set(wrong_hashes(folder))
    hashes = manifest_hashes(folder)
    splits_of_source: dict[str, set[str]] = defaultdict(set)
    splits_of_pixels: dict[str, set[str]] = defaultdict(set)
    for sample in samples:
        splits_of_source[sample.scene.source_id].add(sample.split)
        splits_of_pixels[hashes.get(sample.image, "")].add(sample.split)
    errors = letter_errors(samples)
    computed = {
        "boxes_inside": [_boxes_inside(s) for s in samples],
        "overlap": [_overlap(s) for s in samples],
        "truth_when_clean": [truth(s.question.query, s.scene.objects) == s.question.answer_text for s in samples],
        "truth_when_edited": [
            not s.edits or truth(s.question.query, s.edited_objects) == s.question.answer_text for s in samples
        ],
        "pair_is_whole": [bool(s.edits) == (s.edited_image is not None) == (s.ssim is not None) for s in samples],
        "unseen_only_evaluated": [s.split == "evaluate" or all(e.family != "unseen" for e in s.edits) for s in samples],
        "splits_of_source": [len(splits_of_source[s.scene.source_id]) for s in samples],
        "splits_of_pixels": [len(splits_of_pixels[hashes.get(s.image, "")]) for s in samples],
        "hashes_hold": [wrong.isdisjoint(images_of(s)) and s.image in hashes for s in samples],
        "letter_error": [errors[len(s.question.options)][s.question.answer] for s in samples],
    }
    return frame.assign(**computed)


def letter_errors(samples: Sequence[Sample]) -> dict[int, dict[str, float]]:
    """Number of options to letter to how far its share of right answers is off, in standard deviations.

    Counted over questions, not samples: the versions of one question share their letter.
    """
    questions = {(s.split, s.image): s.question for s in samples}.values()
    counts: dict[int, Counter[str]] = defaultdict(Counter)
    for question in questions:
        counts[len(question.options)][question.answer] += 1
    errors: dict[int, dict[str, float]] = {}
    for options, letters in counts.items():
        total, share = letters.total(), 1 / options
        deviation = sqrt(total * share * (1 - share))
        errors[options] = {letter: abs(letters[letter] - total * share) / deviation for letter in LETTERS[:options]}
    return errors


def data_expectations(min_ssim: float) -> list["Expectation"]:
    """The suite, each expectation with the reason for it."""
    gx = _great_expectations()
    e = gx.expectations

    def because(why: str) -> dict[str, str]:
        return {"why": why}

    required = ("sample_id", "split", "source_id", "scene_id", "kind", "question", "answer", "image")
    true_columns = {
        "boxes_inside": "every object, protected box and edit lies inside the image",
        "truth_when_clean": "the answer is what the clean scene's objects say",
        "truth_when_edited": "the answer is what the edited scene's objects say: no edit may change the truth",
        "pair_is_whole": "a pair has edits, an edited image and an SSIM; a clean sample has none of them",
        "unseen_only_evaluated": "the held-out family is trained on by nobody",
        "hashes_hold": "the images are the ones that were written",
    }
    kinds = ["existence", "attribute", "relation", "count"]
    return [
        *(e.ExpectColumnValuesToNotBeNull(column=c, meta=because("every sample has it")) for c in required),
        e.ExpectColumnValuesToBeUnique(column="sample_id", meta=because("samples are told apart by it")),
        e.ExpectColumnValuesToBeInSet(column="split", value_set=list(SPLITS), meta=because("no other split exists")),
        e.ExpectColumnValuesToBeInSet(column="kind", value_set=kinds, meta=because("no other kind exists")),
        *(
            e.ExpectColumnValuesToBeInSet(column=c, value_set=[True], meta=because(why))
            for c, why in true_columns.items()
        ),
        e.ExpectColumnValuesToBeBetween(
            column="overlap", min_value=0, max_value=0, meta=because("no edit touches a protected box (square pixels)")
        ),
        e.ExpectColumnValuesToBeBetween(
            column="ssim", min_value=min_ssim, max_value=1.0001, meta=because("protected boxes look as before")
        ),
        e.ExpectColumnValuesToBeBetween(
            column="splits_of_source", min_value=1, max_value=1, meta=because("no source stands in two splits")
        ),
        e.ExpectColumnValuesToBeBetween(
            column="splits_of_pixels", min_value=1, max_value=1, meta=because("no clean image stands in two splits")
        ),
        e.ExpectColumnValuesToBeBetween(
            column="letter_error", min_value=0, max_value=LETTER_SIGMAS, meta=because("no letter is right too often")
        ),
    ]


def validate(frame: pd.DataFrame, expectations: Sequence["Expectation"]) -> list[Verdict]:
    """Run a checkpoint of these expectations over a frame, in memory."""
    gx = _great_expectations()
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False, "metric_calculations": False}
    batch = (
        context.data_sources.add_pandas("data_set")
        .add_dataframe_asset("samples")
        .add_batch_definition_whole_dataframe("all")
    )
    suite = context.suites.add(gx.ExpectationSuite(name="prepared_data", expectations=list(expectations)))
    definition = context.validation_definitions.add(
        gx.ValidationDefinition(name="prepared_data", data=batch, suite=suite)
    )
    checkpoint = context.checkpoints.add(
        gx.Checkpoint(
            name="prepared_data",
            validation_definitions=[definition],
            result_format={"result_format": "SUMMARY", "unexpected_index_column_names": ["sample_id"]},
        )
    )
    outcome = checkpoint.run(batch_parameters={"dataframe": frame})
    return [_verdict(result) for run in outcome.run_results.values() for result in run.results]


def raise_for(verdicts: Sequence[Verdict]) -> None:
    """Raise for the first kind of trouble there is: a guard that could not look, then data that is bad."""
    raised = [v for v in verdicts if v.raised]
    if raised:
        named = "; ".join(f"{v.expectation}({v.column}): {v.raised}" for v in raised)
        raise GuardBrokenError(f"expectations raised instead of giving a verdict: {named}")
    failed = [v for v in verdicts if not v.success]
    if failed:
        named = "; ".join(f"{v.expectation}({v.column}), as {v.why}: {v.detail}" for v in failed)
        raise DataGuardError(f"the data breaks {len(failed)} of {len(verdicts)} expectations: {named}")


def write_report(folder: Path, verdicts: Sequence[Verdict], samples: int) -> None:
    """report.json for machines, report.html for people. Equal verdicts give equal bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    passed = sum(v.success for v in verdicts)
    summary = {"samples": samples, "passed": passed, "expectations": [asdict(v) for v in verdicts]}
    (folder / "report.json").write_text(json.dumps(summary, indent=1) + "\n")
    templates = Environment(
        loader=PackageLoader("aot_core.data", ""), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    page = templates.get_template("guard.html.j2").render(samples=samples, passed=passed, verdicts=verdicts)
    (folder / "report.html").write_text(page, encoding="utf-8")


def _verdict(result: Any) -> Verdict:
    kwargs = result.expectation_config.kwargs
    return Verdict(
        expectation=result.expectation_config.type,
        column=str(kwargs.get("column", "")),
        why=str((result.expectation_config.meta or {}).get("why", "")),
        success=bool(result.success),
        detail=_detail(result.result),
        raised=_raised(result.exception_info),
    )


def _detail(result: Mapping[str, Any]) -> str:
    if "unexpected_count" not in result:
        return f"observed {result['observed_value']}" if "observed_value" in result else ""
    count = result["unexpected_count"]
    if not count:
        return f"{result['element_count']} rows"
    first = [row.get("sample_id", "?") for row in result.get("partial_unexpected_index_list") or ()][:5]
    values = list(result.get("partial_unexpected_list") or ())[:5]
    return f"{count} of {result['element_count']} rows, first {first} with {values}"


def _raised(info: Mapping[str, Any] | None) -> str:
    """The exception's message; "" where none was raised. A metric's exception stands one level down, by its id."""
    entries = [info or {}, *(value for value in (info or {}).values() if isinstance(value, Mapping))]
    return "; ".join(str(entry["exception_message"]) for entry in entries if entry.get("raised_exception"))


def _boxes_inside(sample: Sample) -> bool:
    boxes: list[Box] = [thing.box for thing in (*sample.scene.objects, *sample.edited_objects)]
    boxes += [*sample.question.protected, *(edit.region for edit in sample.edits)]
    return all(b.right <= sample.scene.width + 0.5 and b.bottom <= sample.scene.height + 0.5 for b in boxes)


def _overlap(sample: Sample) -> float:
    """Square pixels of protected boxes that edits may change."""
    return sum(edit.region.overlap(box) for edit in sample.edits for box in sample.question.protected)


def _great_expectations() -> Any:
    """The library, imported late (it takes seconds) and told first not to phone home and not to chat."""
    os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")
    import great_expectations

    logging.getLogger("great_expectations").setLevel(logging.WARNING)
    # This one sets a level of its own when it is imported.
    logging.getLogger("great_expectations.data_context.types.base").setLevel(logging.WARNING)
    return great_expectations
