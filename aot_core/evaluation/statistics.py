"""Intervals and paired tests for shares of right answers."""

from collections.abc import Sequence
from math import sqrt
from statistics import NormalDist
from typing import NamedTuple

from scipy.stats import binomtest

CONFIDENCE = 0.95


class Share(NamedTuple):
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


def share(right: Sequence[bool]) -> Share:
    """The share of True with its Wilson score interval (Wilson 1927), 95 %.

    Unlike the normal approximation it stays inside 0..1 and has a width at shares of 0 and 1. Raises
    ValueError for an empty sequence.
    """
    if not right:
        raise ValueError("right is empty; a share needs one answered question at least")
    interval = binomtest(sum(right), len(right)).proportion_ci(CONFIDENCE, method="wilson")
    return Share(sum(right) / len(right), float(interval.low), float(interval.high), len(right))


def paired_difference(first: Sequence[bool], second: Sequence[bool]) -> PairedDifference:
    """Compare two lists of right answers to the same questions, in the same order.

    The p-value is McNemar's, exact: of the questions on which the two differ, how unusual is this split if
    either is as likely. The interval is Agresti and Min's (2005): Wald's, after half an observation is added
    to each of the four cells. Raises ValueError where the lengths differ or are 0.
    """
    if len(first) != len(second) or not first:
        raise ValueError(f"{len(first)} answers against {len(second)}: give equally many, one at least")
    n = len(first)
    lost = sum(a and not b for a, b in zip(first, second, strict=True))
    won = sum(b and not a for a, b in zip(first, second, strict=True))
    z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
    padded_n, padded_lost, padded_won = n + 2, lost + 0.5, won + 0.5
    centre = (padded_won - padded_lost) / padded_n
    spread = z * sqrt((padded_won + padded_lost) / padded_n - centre**2) / sqrt(padded_n)
    p_value = float(binomtest(won, won + lost).pvalue) if won + lost else 1.0
    low, high = max(-1.0, centre - spread), min(1.0, centre + spread)
    return PairedDifference((won - lost) / n, low, high, p_value, lost, won, n)
