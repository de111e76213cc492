"""The figures of a campaign for a terminal of 80 columns: a condition a row, a round a column, the worst case first."""

import json
from dataclasses import dataclass
from pathlib import Path

from aot_core.contracts.evaluate import CLEAN, EvaluateOutputs
from aot_core.contracts.summary import CampaignSummary
from aot_core.contracts.terminal import counted
from aot_core.evaluation.charts import conditions_of
from aot_core.evaluation.headline import figure, spoken, worst_of, worst_tile
from aot_core.evaluation.report import evaluations_of

_MOST_ROUNDS = 4
"""Columns of rounds that 80 characters hold; of more, the first and the last ones are shown."""
_SEEDS = Path(__file__).parents[2] / "docs" / "coevolution.json"
"""What `benchmarks/coevolution.py configs/tiny.toml` measured over five seeds; a checkout alone holds it."""


@dataclass(frozen=True)
class ClosingTable:
    """What `aot run` prints last."""

    headline: str
    movements: tuple[str, ...]
    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    """A label, then a cell a round: strict accuracy and its interval, in percent."""
    note: str


def closing_table(summary: CampaignSummary) -> ClosingTable | None:
    """None before anything was evaluated."""
    evaluations = evaluations_of(summary)
    if not evaluations:
        return None
    rounds = sorted(evaluations)
    shown = rounds if len(rounds) <= _MOST_ROUNDS else [rounds[0], *rounds[1 - _MOST_ROUNDS :]]
    last = evaluations[rounds[-1]]
    tile = worst_tile(evaluations, summary.decision)
    worst = tuple(_cell(evaluations[number], worst_of(evaluations[number])) for number in shown)
    rows = [("worst case", *worst)]
    for name in conditions_of({number: evaluations[number] for number in shown}):
        cells = (_cell(evaluations[n], name) if name in evaluations[n].strict else "" for n in shown)
        rows.append((spoken(name).removesuffix(" distractors"), *cells))
    heads = ["", *("warm start" if number == 0 else f"round {number}" for number in shown)]
    spread = spread_over_seeds(summary)
    if spread:
        heads.append("five seeds")
        names = ["", *conditions_of({number: evaluations[number] for number in shown})]
        rows = [(*row, spread.get(name, "")) for name, row in zip(names, rows, strict=True)]
    left_out = len(rounds) - len(shown)
    return ClosingTable(
        headline=f"worst case {tile.now.text} % {tile.note}" if tile else f"clean {100 * last.strict['clean']:.1f} %",
        movements=tuple(movement.text for movement in tile.movements) if tile else (),
        heads=tuple(heads),
        rows=tuple(rows),
        note=f"strict accuracy in %, 95 % interval over n = {last.n['clean']} questions; every question is asked "
        f"{summary.config['evaluate']['samples']} times and has to be right each time"
        + (f"; the report also has {counted(left_out, 'round')} in between" if left_out else ""),
    )


def spread_over_seeds(summary: CampaignSummary) -> dict[str, str]:
    """By condition, the lowest and the highest figure of the last Defender over five seeds, in percent; "" stands for
    the worst case. Empty where nobody has measured them for this config."""
    if summary.name != "tiny" or not _SEEDS.is_file():
        return {}
    measured = json.loads(_SEEDS.read_text(encoding="utf-8"))["strict"].get(f"aot_{summary.config['rounds']}")
    if measured is None:
        return {}
    attacks = [shares for name, shares in measured.items() if name not in (CLEAN, "other")]
    spread = {name: _range(shares) for name, shares in measured.items()}
    return spread | {"": _range([min(shares) for shares in zip(*attacks, strict=True)])}


def _range(shares: list[float]) -> str:
    return f"{100 * min(shares):.1f}-{100 * max(shares):.1f}"


def _cell(outputs: EvaluateOutputs, condition: str) -> str:
    shown = figure(outputs, condition)
    return f"{shown.value:.1f} {shown.low:.0f}-{shown.high:.0f}"
