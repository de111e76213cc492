"""A campaign's report: one HTML file that needs nothing beside it, neither network nor other files; and the same
without pictures as Markdown.

CampaignSummary --view--> plain tables and pictures --report.html.j2--> HTML
                                                    --report.md.j2--> Markdown
"""

import base64
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, get_args

from jinja2 import Environment, PackageLoader, StrictUndefined

from aot_core.contracts.artifact import StageName, StageRecord
from aot_core.contracts.evaluate import (
    APART,
    CLEAN,
    REGRESSION_SUITE,
    WORST_OF_N,
    Changes,
    EvaluateOutputs,
    by_attacker,
)
from aot_core.contracts.markdown import Markdown, as_text
from aot_core.contracts.summary import CampaignSummary, StageStep
from aot_core.evaluation.charts import accuracy_curves, attack_mix, conditions_of, crossplay, label_of
from aot_core.evaluation.decision_page import row
from aot_core.evaluation.drift_rows import drift_rows

_MERGED = (
    "strict",
    "low",
    "high",
    "mean",
    "n",
    "valid",
    "kinds",
    "kinds_n",
    "flips",
    "mends",
    "calibration_error",
    "hallucination",
    "changes_by_question",
    "changes_by_edit",
)
_COUNTS = ("n", "seen_in_training")
"""A benchmark's figures that are no shares."""
_CURATION = ("edited", "intact", "confined", "semantic", "valid", "kept")
"""The curation funnel, as `CurateOutputs` counts it."""


@dataclass(frozen=True)
class ReportImage:
    """An image inside the page."""

    title: str
    light: str
    """A data URI, or "" where the file is gone."""
    dark: str = ""
    """The same for a dark page, where it differs."""


@dataclass(frozen=True)
class Bar:
    """A row of a bar list."""

    label: str
    value: float
    share: float
    """Of the longest bar, 0..1."""
    note: str = ""


@dataclass(frozen=True)
class Cell:
    """An accuracy with its interval, all in percent."""

    value: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class ChangeCell:
    """Flipped and mended of one kind, in percent, as they are shown."""

    flipped: str
    mended: str
    n: str

    @property
    def text(self) -> str:
        return f"{self.flipped} / {self.mended} ({self.n})"


@dataclass(frozen=True)
class Tile:
    """A headline: an accuracy before the first round and after the last."""

    label: str
    before: Cell
    after: Cell


def write_report(summary: CampaignSummary, path: Path) -> Path:
    """Render the report to a file, whole or not at all; returns the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(path.name + ".partial")
    unfinished.write_text(render_report(summary), encoding="utf-8")
    unfinished.replace(path)
    return path


def render_report(summary: CampaignSummary) -> str:
    """The report of a campaign, finished or not; parts whose stages have not run are left out."""
    charts = [
        ReportImage(title, *(_data_uri(draw(dark)) for dark in (False, True))) for title, _, draw in charts_of(summary)
    ]
    view = _view(summary) | {"charts": charts, "galleries": _galleries(summary)}
    return _environment(autoescape=True).get_template("report.html.j2").render(view)


def report_markdown(summary: CampaignSummary) -> str:
    """The report's tables as Markdown, for Prefect's pages."""
    view = _view(summary)
    view["config"] = Markdown(view["config"])  # in a code block, and JSON breaks no line inside a text
    return _environment(autoescape=False).get_template("report.md.j2").render(view)


def accuracy_rows(summary: CampaignSummary) -> list[dict[str, str | float]]:
    """The accuracy table as records: a round and condition each, with interval and n, in percent."""
    return [
        {
            "round": number,
            "condition": label_of(name),
            "strict": round(cell.value, 2),
            "low": round(cell.low, 2),
            "high": round(cell.high, 2),
            "n": cell.n,
        }
        for number, cells in accuracy_table(evaluations_of(summary))
        for name, cell in cells.items()
    ]


def chart_files(summary: CampaignSummary) -> dict[str, bytes]:
    """The report's charts as they look on a light page: file name to PNG."""
    return {name: draw(False) for _, name, draw in charts_of(summary)}


def _environment(*, autoescape: bool) -> Environment:
    return Environment(
        loader=PackageLoader("aot_core.evaluation", "."),
        autoescape=autoescape,
        undefined=StrictUndefined,
        finalize=None if autoescape else as_text,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _view(summary: CampaignSummary) -> dict[str, Any]:
    """What both forms of the report show."""
    evaluations = evaluations_of(summary)
    return {
        "summary": summary,
        "conditions": [(name, label_of(name)) for name in conditions_of(evaluations)],
        "table": accuracy_table(evaluations),
        "robustness": robustness_rows(evaluations),
        "changes": change_tables(evaluations),
        "benchmarks": benchmark_rows(evaluations),
        "decision": summary.decision,
        "drift": drift_rows(summary),
        "test_row": row,
        "cost": cost(summary.steps),
        "tiles": tiles(evaluations),
        "funnels": funnels(summary),
        "stages": _stage_figures(summary),
        "seconds": seconds_bars(summary.steps),
        "total": _duration(sum(step.record.seconds for step in summary.steps)),
        "lineage": [_lineage(step) for step in summary.steps],
        "packages": summary.steps[-1].record.packages if summary.steps else {},
        "config": json.dumps(summary.config, indent=2, sort_keys=True, ensure_ascii=False),
    }


def evaluations_of(summary: CampaignSummary) -> dict[int, EvaluateOutputs]:
    """What each round's Defender scored. Several evaluations of a round are joined, figures by condition the later one
    counting, all else as the first one has it."""
    joined: dict[int, dict[str, Any]] = {}
    for step in summary.steps:
        if step.record.stage != "evaluate":
            continue
        known, new = joined.get(step.round, {}), step.record.outputs
        merged = {field: {**known.get(field, {}), **new[field]} for field in _MERGED}
        joined[step.round] = {**new, **known, **merged}
    return {number: EvaluateOutputs.model_validate(outputs) for number, outputs in sorted(joined.items())}


def accuracy_table(evaluations: dict[int, EvaluateOutputs]) -> list[tuple[int, dict[str, Cell]]]:
    """(round, condition to accuracy) in percent."""
    return [
        (number, {name: _cell(outputs, name) for name in outputs.strict}) for number, outputs in evaluations.items()
    ]


def robustness_rows(evaluations: dict[int, EvaluateOutputs]) -> list[tuple[str, list[float | None]]]:
    """What the last Defender's answers do under each attack, in percent: flipped, mended, calibration error,
    hallucinated; the clean scenes first."""
    if not evaluations:
        return []
    last = evaluations[max(evaluations)]
    tables = (last.flips, last.mends, last.calibration_error, last.hallucination)
    rows: list[tuple[str, list[float | None]]] = []
    for name in conditions_of({0: last}):
        values = [100 * table[name] if name in table else None for table in tables]
        rows.append((label_of(name), values))
    return rows if any(value is not None for _, values in rows for value in values) else []


def change_tables(
    evaluations: dict[int, EvaluateOutputs],
) -> list[tuple[str, list[str], list[tuple[str, list[ChangeCell | None]]]]]:
    """(by what, attacks, rows of a kind and its cells) of the last Defender: flipped and mended, by kind of question
    and by kind of edit."""
    if not evaluations:
        return []
    last = evaluations[max(evaluations)]
    attacks = [name for name in conditions_of({0: last}) if name not in APART]
    tables: list[tuple[str, list[str], list[tuple[str, list[ChangeCell | None]]]]] = []
    for title, found in (("kind of question", last.changes_by_question), ("kind of edit", last.changes_by_edit)):
        kinds = sorted({name.partition("/")[2] for name in found})
        rows = [(kind, [_change_cell(found.get(f"{attack}/{kind}")) for attack in attacks]) for kind in kinds]
        if rows:
            tables.append((title, [label_of(name) for name in attacks], rows))
    return tables


def _change_cell(change: Changes | None) -> ChangeCell | None:
    if change is None:
        return None
    flipped, mended = ("·" if v is None else f"{100 * v:.1f}" for v in (change.flipped, change.mended))
    return ChangeCell(flipped, mended, f"{change.right}, {change.wrong}")


def benchmark_rows(evaluations: dict[int, EvaluateOutputs]) -> list[tuple[str, int, dict[str, float]]]:
    """(benchmark, questions, its figures in percent) of the last Defender: those over all categories."""
    if not evaluations:
        return []
    last = evaluations[max(evaluations)]
    return [
        (
            name,
            int(figures["n"]),
            {key: 100 * value for key, value in figures.items() if key not in _COUNTS and key.count("/") < 2},
        )
        for name, figures in last.benchmarks.items()
    ]


def cost(steps: Sequence[StageStep]) -> list[tuple[str, float, float]]:
    """(device, hours computed in all, hours that were not reused): GPU-hours where a stage had a GPU to itself."""
    found: dict[str, list[float]] = {}
    for step in steps:
        hours = found.setdefault(step.record.device, [0.0, 0.0])
        hours[0] += step.record.seconds / 3600
        hours[1] += 0.0 if step.reused else step.record.seconds / 3600
    return [(device, all_, fresh) for device, (all_, fresh) in sorted(found.items())]


def tiles(evaluations: dict[int, EvaluateOutputs]) -> list[Tile]:
    """First against last evaluation, on the conditions that both hold."""
    if len(evaluations) < 2:
        return []
    first, last = evaluations[min(evaluations)], evaluations[max(evaluations)]
    common = [name for name in conditions_of(evaluations) if name in first.strict and name in last.strict]
    names = {
        CLEAN: "clean scenes",
        REGRESSION_SUITE: "on the regression suite",
        WORST_OF_N: "on the worst of n edits a scene",
    }
    return [
        Tile(names.get(name, f"under {label_of(name)} distractors"), _cell(first, name), _cell(last, name))
        for name in common
    ]


def funnels(summary: CampaignSummary) -> list[tuple[str, list[Bar]]]:
    """How the data were made, and how each round's edits were curated."""
    found: list[tuple[str, list[Bar]]] = []
    for step in summary.steps:
        outputs = step.record.outputs
        if step.record.stage == "prepare_data" and outputs.get("funnel"):
            found.append(("Data preparation", bars(sorted(outputs["funnel"].items()))))
        if step.record.stage == "curate":
            counts = [(name, outputs[name]) for name in _CURATION if name in outputs]
            found.append((f"Curation, round {step.round}", bars(counts)))
    return found


def bars(items: Iterable[tuple[str, float]]) -> list[Bar]:
    """Bars relative to the longest."""
    rows = list(items)
    longest = max((value for _, value in rows), default=0) or 1
    return [Bar(label, value, value / longest) for label, value in rows]


def seconds_bars(steps: Sequence[StageStep]) -> list[Bar]:
    """How long each stage computed, also where its result was reused."""
    longest = max((step.record.seconds for step in steps), default=0) or 1
    return [
        Bar(
            f"{step.record.stage}" + (f" · round {step.round}" if step.round else ""),
            step.record.seconds,
            step.record.seconds / longest,
            "reused" if step.reused else "",
        )
        for step in steps
    ]


def _cell(outputs: EvaluateOutputs, name: str) -> Cell:
    return Cell(100 * outputs.strict[name], 100 * outputs.low[name], 100 * outputs.high[name], outputs.n[name])


def charts_of(summary: CampaignSummary) -> list[tuple[str, str, Callable[[bool], bytes]]]:
    """(title, file name, what draws it on a light or dark page) of each chart that the campaign has figures for."""
    evaluations = evaluations_of(summary)
    mixes = {
        step.round: step.record.outputs["tactics"]
        for step in summary.steps
        if step.record.stage == "attacker_round" and step.record.outputs.get("tactics")
    }
    drawn: list[tuple[str, str, Callable[[bool], bytes]]] = []
    if len(evaluations) > 1:
        drawn.append(("Strict accuracy over the rounds", "accuracy.png", partial(accuracy_curves, evaluations)))
    if evaluations:
        drawn.append(("Cross-play: strict accuracy in percent", "crossplay.png", partial(crossplay, evaluations)))
    if mixes:
        drawn.append(("How each Attacker attacked, late in its round", "attacks.png", partial(attack_mix, mixes)))
    return drawn


def _galleries(summary: CampaignSummary) -> list[tuple[str, list[ReportImage]]]:
    """Pictures by round, in the order of the stages."""
    rounds: dict[int, list[ReportImage]] = {}
    for step in summary.steps:
        for name in step.pictures:
            path = Path(name)
            uri = _data_uri(path.read_bytes()) if path.is_file() else ""
            title = _gallery_title(step, path.stem)
            rounds.setdefault(step.round, []).append(ReportImage(title, uri))
    return [
        (f"Round {number}" if number else "Before the first round", pictures)
        for number, pictures in sorted(rounds.items())
    ]


def _gallery_title(step: StageStep, name: str) -> str:
    """Who did what to whom."""
    if step.record.stage == "evaluate":
        who = label_of(name) if by_attacker(name) else f"{name} distractors"
        return f"{who} against Defender {step.round}: first what turned right answers wrong"
    if step.record.stage == "attacker_round":
        return f"Attacker {step.round}'s best edits, against Defender {step.round - 1}"
    return f"{step.record.stage}: {name}"


def _stage_figures(summary: CampaignSummary) -> list[tuple[str, list[int], list[tuple[str, list[float | None]]]]]:
    """For every stage but the evaluation: its figures, a row each, a column a round."""
    tables: list[tuple[str, list[int], list[tuple[str, list[float | None]]]]] = []
    for stage in get_args(StageName):
        records = {step.round: step.record for step in summary.steps if step.record.stage == stage}
        if not records or stage == "evaluate":
            continue
        names = list(dict.fromkeys(name for record in records.values() for name in _plain_metrics(record)))
        rounds = sorted(records)
        rows = [(name, [_plain_metrics(records[number]).get(name) for number in rounds]) for name in names]
        tables.append((stage, rounds, rows))
    return tables


def _plain_metrics(record: StageRecord) -> dict[str, float]:
    """A record's figures without the funnel, which is drawn."""
    return {name: value for name, value in record.metrics.items() if not name.startswith("funnel/")}


def _lineage(step: StageStep) -> dict[str, Any]:
    record = step.record
    inputs = {name: value for name, value in record.identity.inputs.items() if value}
    return {
        "stage": record.stage,
        "round": step.round,
        "artifact": record.artifact,
        "links": step.links,
        "inputs": [(name, _short(value)) for name, value in inputs.items()],
        "version": record.identity.version,
        "commit": record.git_commit,
        "device": record.device,
        "started": record.started_at,
    }


def _short(value: Any) -> str:
    """Hashes by their first twelve digits, names in full, lists joined."""
    if isinstance(value, list | tuple):
        return ", ".join(_short(item) for item in value)
    text = str(value)
    return text[:12] if len(text) == 64 else text


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _data_uri(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode()
