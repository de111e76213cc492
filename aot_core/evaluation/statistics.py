"""Intervals and paired tests for shares of right answers.

Everything that compares two Defenders is paired by question: the same questions, the same edits of them.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from math import sqrt
from statistics import NormalDist
from typing import Any, Literal, NamedTuple

import numpy as np
from scipy.stats import binomtest, fisher_exact

CONFIDENCE = 0.95
_CHUNK = 1000
"""Resamples weighted at once."""


class Proportion(NamedTuple):
    """A share of right answers with its interval, all in 0..1."""

    value: float
    low: float
    high: float
    n: int


class PairedDifference(NamedTuple):
    """Second minus first, asked the same questions; shares in -1..1."""

    difference: float
    low: float
    high: float
    p_value: float
    """Exact McNemar test, two-sided."""
    lost: int
    """Questions that only the first has right."""
    won: int
    """Questions that only the second has right."""
    n: int


def proportion(right: Sequence[bool]) -> Proportion:
    """The share of True with its Wilson score interval (Wilson 1927), 95 %.

    Unlike the normal approximation it stays inside 0..1 and has a width at shares of 0 and 1. Raises
    ValueError for an empty sequence.
    """
    if not right:
        raise ValueError("right is empty; give at least one answered question")
    interval = binomtest(sum(right), len(right)).proportion_ci(CONFIDENCE, method="wilson")
    return Proportion(sum(right) / len(right), float(interval.low), float(interval.high), len(right))


def paired_difference(
    first: Sequence[bool], second: Sequence[bool], confidence: float = CONFIDENCE
) -> PairedDifference:
    """Compare two lists of right answers to the same questions, in the same order.

    The p-value is McNemar's, exact: of the questions on which the two differ, how unusual is this split if
    either is as likely. The interval is Agresti and Min's (2005): Wald's, after half an observation is added
    to each of the four cells; its lower end is a one-sided bound at level (1 + confidence) / 2. Raises ValueError
    where the lengths differ or are 0.
    """
    if len(first) != len(second) or not first:
        raise ValueError(f"{len(first)} answers against {len(second)}: give as many of each, at least one")
    n = len(first)
    lost = sum(a and not b for a, b in zip(first, second, strict=True))
    won = sum(b and not a for a, b in zip(first, second, strict=True))
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    padded_n, padded_lost, padded_won = n + 2, lost + 0.5, won + 0.5
    centre = (padded_won - padded_lost) / padded_n
    spread = z * sqrt((padded_won + padded_lost) / padded_n - centre**2) / sqrt(padded_n)
    low, high = max(-1.0, centre - spread), min(1.0, centre + spread)
    return PairedDifference((won - lost) / n, low, high, mcnemar(lost, won), lost, won, n)


def mcnemar(lost: int, won: int, alternative: Literal["two-sided", "greater", "less"] = "two-sided") -> float:
    """McNemar's test, exact (binomial on the questions on which two Defenders differ); 1 where they never do.

    Args:
        lost: questions that only the first has right.
        won: questions that only the second has right.
        alternative: "greater" asks whether the second is better, "less" whether it is worse.
    """
    return float(binomtest(won, won + lost, alternative=alternative).pvalue) if won + lost else 1.0


def fell(before: Proportion, now: Proportion) -> float:
    """The p-value of Fisher's exact test, one-sided: how unusual so low a share would be if it had not fallen. For
    shares of different questions; of the same questions `mcnemar` shows more."""
    table = [[round(share.value * share.n), share.n - round(share.value * share.n)] for share in (now, before)]
    result: Any = fisher_exact(table, alternative="less")
    return float(result.pvalue)


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """p-values adjusted by Holm's step-down method (Holm 1979): all may be compared with alpha itself, and the
    chance of one false alarm among them stays at alpha, however they depend on each other."""
    ordered = sorted(p_values, key=lambda name: p_values[name])
    adjusted: dict[str, float] = {}
    highest = 0.0
    for rank, name in enumerate(ordered):
        highest = max(highest, min(1.0, (len(ordered) - rank) * p_values[name]))
        adjusted[name] = highest
    return {name: adjusted[name] for name in p_values}


def worst_case_resamples(
    asked: np.ndarray, first: np.ndarray, second: np.ndarray, resamples: int, seed: int
) -> np.ndarray:
    """The paired bootstrap of a difference of worst cases.

    Questions are resampled whole, with all their edits and both Defenders' answers: what makes a question hard is so
    kept in both. For each resample, each Defender's lowest share over the conditions is taken.

    Args:
        asked: (n, C) of 0 and 1: whether question i stands in condition c (an invalid edit is not asked about).
        first: (n, C) of 0 and 1: right answers of the first Defender; 0 where not asked.
        second: the same of the second.

    Returns:
        (resamples,) second's worst case minus first's; a condition that a resample misses whole does not count there.
    """
    differences: list[np.ndarray] = []
    table = np.concatenate([asked, first, second], axis=1).astype(np.float32)
    conditions = asked.shape[1]
    for weights in _weights(len(asked), resamples, seed):
        sums = weights @ table
        count, right_first, right_second = (sums[:, i * conditions : (i + 1) * conditions] for i in range(3))
        missing = np.where(count > 0, 0.0, np.inf)
        count = np.maximum(count, 1.0)
        worst_first = (right_first / count + missing).min(axis=1)
        worst_second = (right_second / count + missing).min(axis=1)
        differences.append(worst_second - worst_first)
    return np.concatenate(differences)


def paired_resamples(lost: int, won: int, n: int, resamples: int, seed: int) -> np.ndarray:
    """The paired bootstrap of one difference: (resamples,) second minus first, in -1..1.

    Resampling n whole questions draws lost, won and equal ones by their shares, so the counts are all it needs.
    """
    rng = np.random.default_rng([seed, n, resamples])
    drawn = rng.multinomial(n, [lost / n, won / n, (n - lost - won) / n], size=resamples)
    return (drawn[:, 1] - drawn[:, 0]) / n


@lru_cache(maxsize=8)
def _weights(n: int, resamples: int, seed: int) -> tuple[np.ndarray, ...]:
    """How often each of n questions stands in each resample: chunks of (at most _CHUNK, n)."""
    rng = np.random.default_rng([seed, n, resamples])
    starts = range(0, resamples, _CHUNK)
    return tuple(
        rng.multinomial(n, np.full(n, 1 / n), size=min(_CHUNK, resamples - start)).astype(np.float32)
        for start in starts
    )
