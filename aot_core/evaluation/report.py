"""A campaign's report: one HTML file that needs nothing beside it, neither network nor other files; and the same
without pictures as Markdown.

CampaignSummary --view--> plain tables and pictures --report.html.j2--> HTML
                                                    --report.md.j2--> Markdown
"""

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
    Changes,
    EvaluateOutputs,
    by_attacker,
)
from aot_core.contracts.markdown import Markdown, as_text
from aot_core.contracts.summary import CampaignSummary, StageStep
from aot_core.evaluation.attack_gallery import attack_value, gallery_of
from aot_core.evaluation.charts import accuracy_curves, attack_mix, conditions_of, crossplay, label_of
from aot_core.evaluation.decision_page import row
from aot_core.evaluation.drift_rows import drift_rows
from aot_core.evaluation.headline import Figure, changes_since, figure, tiles
from aot_core.evaluation.web_pictures import chart_uri, shrunk_uri

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
_MOST_BYTES = 2_600_000
"""Of pictures in the page, so that the whole stays below 3 MB."""
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
class ChangeCell:
    """Flipped and mended of one kind, in percent, as they are shown."""

    flipped: str
    mended: str
    n: str

    @property
    def text(self) -> str:
        return f"{self.flipped} / {self.mended} ({self.n})"


def write_report(summary: CampaignSummary, path: Path, previous: CampaignSummary | None = None) -> Path:
    """Render the report to a file, whole or not at all; returns the path (see `render_report`)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(path.name + ".partial")
    unfinished.write_text(render_report(summary, previous), encoding="utf-8")
    unfinished.replace(path)
    return path


def render_report(summary: CampaignSummary, previous: CampaignSummary | None = None) -> str:
    """The report of a campaign, finished or not; parts whose stages have not run are left out.

    Args:
        previous: the campaign of the same name before this one, to say what has changed since.
    """
    charts = [
        ReportImage(title, *(chart_uri(draw(dark)) for dark in (False, True))) for title, _, draw in charts_of(summary)
    ]
    attacks = gallery_of(summary)
    room = _MOST_BYTES - sum(len(c.light) + len(c.dark) for c in charts)
    galleries, left_out = _galleries(summary, room - sum(len(a.clean) + len(a.edited) for a in attacks.attacks))
    view = _view(summary, previous) | {
        "charts": charts, "galleries": galleries, "left_out": left_out, "attacks": attacks, "attack_value": attack_value
    }  # fmt: skip
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


def change_rows(summary: CampaignSummary) -> list[dict[str, str | float | None]]:
    """How the last Defender's answers change, as records: an attack and a kind each, in percent."""
    evaluations = evaluations_of(summary)
    if not evaluations:
        return []
    last = evaluations[max(evaluations)]
    rows: list[dict[str, str | float | None]] = []
    for by, found in (("question", last.changes_by_question), ("edit", last.changes_by_edit)):
        for name, change in found.items():
            attack, _, kind = name.partition("/")
            shares = (None if value is None else round(100 * value, 2) for value in (change.flipped, change.mended))
            flipped, mended = shares
            rows.append(
                {"attack": label_of(attack), "by": by, "kind": kind, "flipped": flipped, "n right": change.right}
                | {"mended": mended, "n wrong": change.wrong}
            )
    return rows


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


def _view(summary: CampaignSummary, previous: CampaignSummary | None = None) -> dict[str, Any]:
    """What both forms of the report show."""
    evaluations = evaluations_of(summary)
    before = evaluations_of(previous) if previous else {}
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
        "tiles": tiles(evaluations, summary.decision),
        "previous": previous,
        "since": changes_since(previous, before, evaluations),
        "links": summary.links,
        "web_links": Markdown(
            ", ".join(f"[{as_text(name)}]({address})" for name, address in summary.links.items() if "://" in address)
        ),
        "local_pages": any("//127.0.0.1" in link for link in summary.links.values()),
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


def accuracy_table(evaluations: dict[int, EvaluateOutputs]) -> list[tuple[int, dict[str, Figure]]]:
    """(round, condition to accuracy) in percent."""
    return [
        (number, {name: figure(outputs, name) for name in outputs.strict}) for number, outputs in evaluations.items()
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


def _galleries(summary: CampaignSummary, room: int) -> tuple[list[tuple[str, list[ReportImage]]], int]:
    """Pictures by round, in the order of the stages, and how many found no room.

    A distractor family's page is shown of the last evaluation alone: it is the same edits in every round.

    Args:
        room: characters that all of them may take; the newest rounds are taken first.
    """
    rounds: dict[int, list[ReportImage]] = {}
    last = max((step.round for step in summary.steps if step.record.stage == "evaluate"), default=0)
    left_out = 0
    for step in reversed(summary.steps):
        for name in reversed(step.pictures):
            path = Path(name)
            if step.record.stage == "evaluate" and step.round < last and not by_attacker(path.stem):
                left_out += 1
                continue
            uri = shrunk_uri(path) if room > 0 else ""
            if (path.is_file() and not uri) or len(uri) > room:
                left_out, room = left_out + 1, 0  # a smaller one of an earlier round is no better choice
                continue
            room -= len(uri)
            rounds.setdefault(step.round, []).insert(0, ReportImage(_gallery_title(step, path.stem), uri))
    told = [
        (f"Round {number}" if number else "Before the first round", pictures)
        for number, pictures in sorted(rounds.items())
    ]
    return told, left_out


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
