"""The report's figures, as PNG bytes, for a light and for a dark page."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from aot_core.contracts.evaluate import CLEAN, REGRESSION_SUITE, WORST_OF_N, EvaluateOutputs, by_attacker
from aot_core.contracts.promotion import BENCHMARK_PREFIX

_INK = {False: "#23262b", True: "#e4e6ea"}
_FAINT = {False: "#d9dce1", True: "#3a3f47"}
_LINES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8a6fd1", "#999999")
"""Okabe and Ito's colours: distinguishable by colour-blind readers, and legible on both backgrounds."""
_DPI = 130

Evaluations = Mapping[int, EvaluateOutputs]
"""By round; 0 is before the first."""


def conditions_of(evaluations: Evaluations) -> list[str]:
    """All conditions that any evaluation holds: clean, the distractor families, the Attackers by number, those of other
    campaigns, then the regression suite."""
    names = {
        name for outputs in evaluations.values() for name in outputs.strict if not name.startswith(BENCHMARK_PREFIX)
    }
    ours = {name: name.startswith("attacker_") for name in names}
    places = {CLEAN: 0, WORST_OF_N: 2, REGRESSION_SUITE: 3}
    return sorted(names, key=lambda name: (places.get(name, 1), by_attacker(name), not ours[name], _number(name), name))


def label_of(condition: str) -> str:
    """ "attacker_2" as "Attacker 2"."""
    if condition == REGRESSION_SUITE:
        return "regression suite"
    if condition == WORST_OF_N:
        return "worst of n"
    return condition.replace("_", " ").capitalize() if by_attacker(condition) else condition


def _number(condition: str) -> int:
    return int(condition.rpartition("_")[2]) if by_attacker(condition) else 0


def accuracy_curves(evaluations: Evaluations, dark: bool) -> bytes:
    """Strict accuracy over the rounds: left clean scenes and procedural distractors, beside them the Attackers, then
    the regression suite."""
    conditions = conditions_of(evaluations)
    panels = [
        (
            "clean and procedural distractors",
            [name for name in conditions if not by_attacker(name) and name not in (WORST_OF_N, REGRESSION_SUITE)],
        ),
        ("scenes edited by Attackers", [name for name in conditions if by_attacker(name) or name == WORST_OF_N]),
        ("what fooled earlier Defenders", [name for name in conditions if name == REGRESSION_SUITE]),
    ]
    panels = [(title, names) for title, names in panels if names]
    figure = Figure(figsize=(4.6 * len(panels) + 0.4, 3.5), layout="constrained")
    axes_list = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axes, (title, names) in zip(axes_list, panels, strict=True):
        for name in names:
            _curve(axes, evaluations, name, _LINES[conditions.index(name) % len(_LINES)])
        axes.set_title(title, fontsize=10, color=_INK[dark])
        axes.set_xlabel("after round", color=_INK[dark])
        axes.set_xticks(sorted(evaluations))
        axes.grid(axis="y", color=_FAINT[dark], linewidth=0.7)
        legend = axes.legend(frameon=False, fontsize=8)
        for text in legend.get_texts():
            text.set_color(_INK[dark])
    axes_list[0].set_ylabel("strict accuracy, %", color=_INK[dark])
    return _png(figure, dark)


def crossplay(evaluations: Evaluations, dark: bool) -> bytes:
    """A heat map: every Defender (row) against every condition (column); what was not played stays empty."""
    conditions, rounds = conditions_of(evaluations), sorted(evaluations)
    table = np.full((len(rounds), len(conditions)), np.nan)
    for row, number in enumerate(rounds):
        for column, name in enumerate(conditions):
            table[row, column] = 100 * evaluations[number].strict.get(name, np.nan)
    figure = Figure(figsize=(1.6 + 0.95 * len(conditions), 0.9 + 0.5 * len(rounds)), layout="constrained")
    axes = figure.subplots()
    low = min(float(np.floor(np.nanmin(table) / 10) * 10), 90.0)
    axes.imshow(table, cmap="viridis", vmin=low, vmax=100.0, aspect="auto")
    for row, column in np.argwhere(~np.isnan(table)):
        bright = (table[row, column] - low) / (100.0 - low) > 0.6
        colour = "#101214" if bright else "#ffffff"
        axes.text(column, row, f"{table[row, column]:.1f}", ha="center", va="center", fontsize=9, color=colour)
    axes.set_xticks(range(len(conditions)), [label_of(name) for name in conditions], fontsize=9)
    axes.set_yticks(range(len(rounds)), [f"Defender {number}" for number in rounds], fontsize=9)
    axes.set_xticks(np.arange(-0.5, len(conditions)), minor=True)
    axes.set_yticks(np.arange(-0.5, len(rounds)), minor=True)
    axes.grid(which="minor", color=_FAINT[dark], linewidth=1)
    axes.tick_params(which="minor", length=0)
    return _png(figure, dark)


def attack_mix(mixes: Mapping[int, Mapping[str, float]], dark: bool) -> bytes:
    """How each round's Attacker attacked, late in its round: the share of every kind of edit, place and content.

    Args:
        mixes: by round, shares by "factor/option" (`AttackerRoundOutputs.tactics`).
    """
    factors = list(dict.fromkeys(name.partition("/")[0] for mix in mixes.values() for name in mix))
    rounds = sorted(mixes)
    figure = Figure(figsize=(3.6 * len(factors), 3.3), layout="constrained")
    for axes, factor in zip(figure.subplots(1, len(factors), sharey=True, squeeze=False)[0], factors, strict=True):
        options = list(dict.fromkeys(n for mix in mixes.values() for n in mix if n.startswith(f"{factor}/")))
        floor = np.zeros(len(rounds))
        for option, colour in zip(options, _LINES, strict=False):
            shares = np.array([100 * mixes[number].get(option, 0.0) for number in rounds])
            axes.bar(rounds, shares, bottom=floor, color=colour, width=0.6, label=option.partition("/")[2])
            floor += shares
        axes.set_title(factor, fontsize=10, color=_INK[dark])
        axes.set_xticks(rounds)
        axes.set_xlabel("Attacker of round", color=_INK[dark])
        legend = axes.legend(frameon=False, fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.22), ncols=2)
        for text in legend.get_texts():
            text.set_color(_INK[dark])
    figure.axes[0].set_ylabel("share, %", color=_INK[dark])
    return _png(figure, dark)


@dataclass(frozen=True)
class Line:
    """A figure over the editions of a series."""

    name: str
    points: Sequence[tuple[int, float | None, bool]]
    """(edition, value, whether it was promoted); None where nothing was measured."""


def trend_lines(lines: Sequence[Line], unit: str, dark: bool) -> bytes:
    """Figures over the editions; filled points were promoted."""
    figure = Figure(figsize=(6.0, 3.2), layout="constrained")
    axes = figure.subplots()
    numbers: set[int] = set()
    for line, colour in zip(lines, _LINES, strict=False):
        known = [(number, value, promoted) for number, value, promoted in line.points if value is not None]
        if not known:
            continue
        numbers |= {number for number, _, _ in known}
        axes.plot([p[0] for p in known], [p[1] for p in known], color=colour, linewidth=1.8, label=line.name)
        for number, value, promoted in known:
            axes.plot(number, value, "o", color=colour, markersize=6, markerfacecolor=colour if promoted else "none")
    axes.set_xticks(sorted(numbers))
    axes.set_xlabel("edition", color=_INK[dark])
    axes.set_ylabel(unit, color=_INK[dark])
    axes.grid(axis="y", color=_FAINT[dark], linewidth=0.7)
    for text in axes.legend(frameon=False, fontsize=8).get_texts():
        text.set_color(_INK[dark])
    return _png(figure, dark)


def _curve(axes: Axes, evaluations: Evaluations, name: str, colour: str) -> None:
    rounds = [number for number in sorted(evaluations) if name in evaluations[number].strict]
    values, low, high = (
        [100 * getattr(evaluations[number], field)[name] for number in rounds] for field in ("strict", "low", "high")
    )
    axes.plot(rounds, values, color=colour, marker="o", markersize=4, linewidth=1.8, label=label_of(name))
    axes.fill_between(rounds, low, high, color=colour, alpha=0.13, linewidth=0)
    if len(rounds) == 1:
        axes.errorbar(rounds, values, _distances(values, low, high), color=colour, capsize=3, linewidth=1.2)


def _distances(values: Sequence[float], low: Sequence[float], high: Sequence[float]) -> np.ndarray:
    """(2, n): how far the interval reaches below and above, never negative by rounding."""
    return np.maximum([np.subtract(values, low), np.subtract(high, values)], 0.0)


def _png(figure: Figure, dark: bool) -> bytes:
    """The figure on a transparent ground, its frame in the page's ink."""
    for axes in figure.axes:
        axes.set_facecolor("none")
        axes.tick_params(colors=_INK[dark], which="both")
        for spine in axes.spines.values():
            spine.set_color(_FAINT[dark])
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=_DPI, transparent=True, metadata={"Software": None})
    return buffer.getvalue()
