"""Answers of several seeds, kept by seed, so that two Defenders are compared seed by seed.

A condition may be missing for a seed: an Attacker without one valid edit has none. A list a condition would then pair
one seed's answers with another's; here such a seed is left out of the comparison, and `missing` says so.
"""

from collections.abc import Iterable, Mapping, Sequence
from statistics import mean, stdev

from scipy.stats import t as student

from aot_core.evaluation.items import Item, paired
from aot_core.evaluation.statistics import paired_difference

Answers = dict[str, dict[str, dict[int, list[Item]]]]
"""Defender -> condition -> seed -> its items."""


def keep(answers: Answers, defender: str, seed: int, items: Iterable[Item]) -> None:
    """Put what a Defender answered in one seed's exam under its conditions."""
    for item in items:
        answers.setdefault(defender, {}).setdefault(item.condition, {}).setdefault(seed, []).append(item)


def conditions_of(answers: Answers) -> list[str]:
    """Every condition that any Defender has met, in the order in which they were met."""
    return list(dict.fromkeys(condition for of_defender in answers.values() for condition in of_defender))


def of(answers: Answers, defender: str, condition: str) -> dict[int, list[Item]]:
    """A Defender's items of a condition by seed; empty where no seed has it."""
    return answers.get(defender, {}).get(condition, {})


def strict_shares(of_condition: Mapping[int, Sequence[Item]]) -> dict[int, float]:
    """Strict accuracy by seed, in 0..1."""
    return {seed: mean(item.strict for item in items) for seed, items in of_condition.items()}


def missing(answers: Answers, seeds: Sequence[int], titles: Mapping[str, str] | None = None) -> list[str]:
    """A sentence that names the seeds without a condition, with a blank line before it; nothing where all are there.

    Args:
        titles: what conditions are called in the tables, for those that are called otherwise than their name.
    """
    gaps: dict[tuple[str, tuple[int, ...]], list[str]] = {}
    for condition in conditions_of(answers):
        for defender in answers:
            found = of(answers, defender, condition)
            if absent := tuple(seed for seed in seeds if seed not in found):
                gaps.setdefault((condition, absent), []).append(defender)
    told = [
        f"{(titles or {}).get(condition, condition)}, seed {', '.join(map(str, absent))}"
        + ("" if len(defenders) == len(answers) else f" ({', '.join(defenders)})")
        for (condition, absent), defenders in gaps.items()
    ]
    if not told:
        return []
    why = "a condition without a valid edit is not asked"
    return ["", f"Missing ({why}), and left out of means and pairs: {'; '.join(told)}."]


def cell(values: Sequence[float]) -> str:
    """A mean over seeds in %, with half its 95 % t interval where there are two or more; "-" where there is none."""
    if not values:
        return "-"
    if len(values) < 2:
        return f"{100 * values[0]:.1f}"
    half = float(student.ppf(0.975, len(values) - 1)) * stdev(values) / len(values) ** 0.5
    return f"{100 * mean(values):.1f} (±{100 * half:.1f})"


def difference(first: Mapping[int, Sequence[Item]], second: Mapping[int, Sequence[Item]]) -> str:
    """Second minus first in points over the items of the seeds that both have, with a 95 % interval and McNemar's p."""
    pairs = [paired(first[seed], second[seed]) for seed in first if seed in second]
    if not pairs:
        return "-"
    result = paired_difference([x for a, _ in pairs for x in a], [x for _, b in pairs for x in b])
    return f"{100 * result.difference:+.1f} ({100 * result.low:+.1f}..{100 * result.high:+.1f}), p {result.p_value:.2g}"
