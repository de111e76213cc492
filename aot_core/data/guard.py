"""The gate behind the data: a Great Expectations checkpoint that stops the campaign on bad data.

    data set on disk ----checks_frame----> one row a sample ----checkpoint----> report.json, report.html, Data Docs
                                                                           \\--> DataGuardError

What spans columns or files (truth, overlap, hashes, splits) is computed into plain columns first (`data.checks`): Great
Expectations' own expectations over rows do not work on pandas. An expectation that failed and one that raised are
told apart: a guard that cannot look has not found the data good, and not found it bad either.
"""

import json
import logging
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined

from aot_core.contracts.errors import ToldError
from aot_core.contracts.prepare_data import GuardSettings
from aot_core.data.checks import checks_frame
from aot_core.data.facts import Note
from aot_core.data.splits import SPLITS
from aot_core.startup import quick_imports
from aot_core.worlds.images import DataError

if TYPE_CHECKING:
    from great_expectations.expectations.expectation import Expectation

_ROWS_NAMED = 20
"""How many of the rows that break an expectation the report names."""


class DataGuardError(DataError):
    """The data broke an expectation. Names every broken one, the column, and rows that break it."""


class GuardBrokenError(ToldError, RuntimeError):
    """An expectation raised instead of giving a verdict: the guard is at fault, not the data."""

    exit_code = 1


@dataclass(frozen=True)
class ExpectationResult:
    """What came of one expectation."""

    expectation: str
    column: str
    why: str
    success: bool
    detail: str
    """The observed value, or how many rows break it and the first of them."""
    raised: str = ""
    """The message of the exception, where the expectation raised."""
    rows: tuple[str, ...] = ()
    """The first samples that break it."""


def guard_dataset(
    folder: Path,
    min_ssim: float,
    report: Path,
    settings: GuardSettings | None = None,
    *,
    photographs: bool = False,
    docs: Path | None = None,
    workers: int = 1,
    notes: Mapping[str, Note] | None = None,
) -> list[ExpectationResult]:
    """Check a data set on disk and leave report.json and report.html in the folder `report`.

    Args:
        min_ssim: the localized SSIM below which no pair may be.
        photographs: whether near-duplicates are looked for. Drawn scenes have seeds of their own instead.
        docs: a folder for Great Expectations' Data Docs, a site of their own; none when left out. They hold the time of
            day, so they belong beside a data set and not into it.
        workers: processes for what no note tells.
        notes: what the build that made this data set noted of its rows (`build.notes_of`); of any other, nothing.

    Raises DataGuardError where an expectation fails, GuardBrokenError where one raises; the report is there first.
    """
    settings = settings or GuardSettings()
    frame = checks_frame(folder, settings.near_duplicate_bits if photographs else None, workers, notes)
    judged = bool(frame["effective"].notna().any())
    verdicts = validate(frame, data_expectations(min_ssim, settings, judged=judged), docs)
    write_report(report, verdicts, len(frame))
    raise_for(verdicts)
    return verdicts


def data_expectations(min_ssim: float, settings: GuardSettings, *, judged: bool = False) -> list["Expectation"]:
    """The suite, each expectation with the reason for it.

    Args:
        judged: whether the base Defender was asked about any pair, so that there is a share to look at.
    """
    e = great_expectations().expectations

    def because(why: str) -> dict[str, str]:
        return {"why": why}

    required = ("sample_id", "split", "source_id", "scene_id", "kind", "question", "answer", "file_name", "overlap")
    true_columns = {
        "record_agrees": "the record can be read and says what its row says",
        "answer_is_an_option": "the answer is the letter of an option, and the options differ",
        "boxes_inside": "every object, protected box and edit lies inside the image",
        "truth_when_clean": "the answer is what the clean scene's objects say",
        "truth_when_edited": "the answer is what the edited scene's objects say: no edit may change the truth",
        "pair_is_whole": "a pair has edits, an edited image and an SSIM; a clean sample has none of them",
        "unseen_only_evaluated": "the held-out family is trained on by nobody",
        "hashes_hold": "tables and images are the ones that were written",
    }
    one = {
        "copies_of_id": "samples are told apart by their id",
        "splits_of_source": "no source stands in two splits",
        "splits_of_pixels": "no clean image stands in two splits",
    }
    kinds = ["existence", "attribute", "relation", "count"]
    suite = [
        *(e.ExpectColumnValuesToNotBeNull(column=c, meta=because("every sample has it")) for c in required),
        e.ExpectColumnValuesToBeInSet(column="split", value_set=list(SPLITS), meta=because("no other split exists")),
        e.ExpectColumnValuesToBeInSet(column="kind", value_set=kinds, meta=because("no other kind exists")),
        *(
            e.ExpectColumnValuesToBeInSet(column=c, value_set=[True], meta=because(why))
            for c, why in true_columns.items()
        ),
        *(
            e.ExpectColumnValuesToBeBetween(column=c, min_value=1, max_value=1, meta=because(why))
            for c, why in one.items()
        ),
        e.ExpectColumnValuesToBeNull(
            column="near_duplicate", meta=because("no source image looks like one of another split")
        ),
        e.ExpectColumnValuesToBeBetween(
            column="overlap", min_value=0, max_value=0, meta=because("no edit touches a protected box (square pixels)")
        ),
        e.ExpectColumnValuesToBeBetween(
            column="ssim", min_value=min_ssim, max_value=1.0001, meta=because("protected boxes look as before")
        ),
        e.ExpectColumnValuesToBeBetween(
            column="letter_p",
            min_value=settings.letter_p,
            max_value=1,
            meta=because("no letter is right more or less often than chance allows (exact binomial test)"),
        ),
    ]
    if judged:
        suite.append(
            e.ExpectColumnMeanToBeBetween(
                column="effective",
                min_value=settings.min_effective,
                max_value=1,
                meta=because("of the pairs that the base Defender was asked about, so many fooled it"),
            )
        )
    return suite


def validate(
    frame: pd.DataFrame, expectations: Sequence["Expectation"], docs: Path | None = None
) -> list[ExpectationResult]:
    """Run a checkpoint of these expectations over a frame, and build Data Docs if they are wanted."""
    with tempfile.TemporaryDirectory(prefix="aot-guard-") as root:
        outcome, context = run_checkpoint(frame, expectations, Path(root) if docs else None)
        if docs is not None:
            # Great Expectations says where by an address: `file:///...`.
            (index,) = context.build_data_docs().values()
            shutil.copytree(Path(index.removeprefix("file://")).parent, docs, dirs_exist_ok=True)
        return [_verdict(result) for run in outcome.run_results.values() for result in run.results]


def run_checkpoint(
    frame: pd.DataFrame, expectations: Sequence["Expectation"], root: Path | None = None
) -> tuple[Any, Any]:
    """Great Expectations' outcome of a checkpoint, and its context: in memory, or in the folder `root`."""
    gx = great_expectations()
    context = gx.get_context(mode="file", project_root_dir=root) if root else gx.get_context(mode="ephemeral")
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
            result_format={
                "result_format": "SUMMARY",
                "unexpected_index_column_names": ["sample_id"],
                "partial_unexpected_count": _ROWS_NAMED,
            },
        )
    )
    return checkpoint.run(batch_parameters={"dataframe": frame}), context


def raise_for(verdicts: Sequence[ExpectationResult]) -> None:
    """Raise for the first kind of trouble there is: a guard that could not look, then data that is bad."""
    raised = [v for v in verdicts if v.raised]
    if raised:
        named = "; ".join(f"{v.expectation}({v.column}): {v.raised}" for v in raised)
        raise GuardBrokenError(f"expectations raised instead of giving a verdict: {named}")
    failed = [v for v in verdicts if not v.success]
    if failed:
        named = "; ".join(f"{v.expectation}({v.column}), as {v.why}: {v.detail}" for v in failed)
        raise DataGuardError(f"the data breaks {len(failed)} of {len(verdicts)} expectations: {named}")


def write_report(folder: Path, verdicts: Sequence[ExpectationResult], samples: int) -> None:
    """Write report.json and report.html. Equal verdicts give equal bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    passed = sum(v.success for v in verdicts)
    summary = {"samples": samples, "passed": passed, "expectations": [asdict(v) for v in verdicts]}
    (folder / "report.json").write_text(json.dumps(summary, indent=1) + "\n")
    templates = Environment(
        loader=PackageLoader("aot_core.data", ""), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    page = templates.get_template("guard.html.j2").render(samples=samples, passed=passed, verdicts=verdicts)
    (folder / "report.html").write_text(page, encoding="utf-8")


def _verdict(result: Any) -> ExpectationResult:
    kwargs = result.expectation_config.kwargs
    return ExpectationResult(
        expectation=result.expectation_config.type,
        column=str(kwargs.get("column", "")),
        why=str((result.expectation_config.meta or {}).get("why", "")),
        success=bool(result.success),
        detail=_detail(result.result),
        rows=tuple(_rows(result.result)),
        raised=raised_in(result),
    )


def _detail(result: Mapping[str, Any]) -> str:
    if "unexpected_count" not in result:
        return f"observed {float(result['observed_value']):.4f}" if result.get("observed_value") is not None else ""
    count = result["unexpected_count"]
    if not count:
        return f"{result['element_count']} rows"
    values = list(result.get("partial_unexpected_list") or ())[:5]
    return f"{count} of {result['element_count']} rows, first {_rows(result)[:5]} with {values}"


def _rows(result: Mapping[str, Any]) -> list[str]:
    """The first samples that break an expectation."""
    return [str(row.get("sample_id", "?")) for row in result.get("partial_unexpected_index_list") or ()]


def raised_in(result: Any) -> str:
    """The exception's message; "" where none was raised. A metric's exception stands one level down, by its id."""
    info: Mapping[str, Any] = result.exception_info or {}
    entries = [info, *(value for value in info.values() if isinstance(value, Mapping))]
    return "; ".join(str(entry["exception_message"]) for entry in entries if entry.get("raised_exception"))


def great_expectations() -> Any:
    """The library, imported late (it takes seconds) and configured first: no telemetry, no progress messages."""
    os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")
    # Before the import, which else tells of hundreds of functions that it documents.
    logging.getLogger("great_expectations").setLevel(logging.WARNING)
    with quick_imports():
        import great_expectations

    # This one sets a level of its own when it is imported.
    logging.getLogger("great_expectations.data_context.types.base").setLevel(logging.WARNING)
    return great_expectations
