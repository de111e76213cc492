from math import comb, sqrt

import numpy as np
import pytest

from aot_core.evaluation.statistics import (
    fell,
    holm,
    mcnemar,
    paired_difference,
    paired_resamples,
    proportion,
    worst_case_resamples,
)


def test_wilson_interval_equals_its_formula() -> None:
    # Centre (p + z²/2n) / (1 + z²/n), half width z / (1 + z²/n) · sqrt(pq/n + z²/4n²).
    z, n, p = 1.959963984540054, 10, 0.8
    centre = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    figure = proportion([True] * 8 + [False] * 2)
    assert figure.value == 0.8 and figure.n == 10
    assert figure.low == pytest.approx(centre - half) == pytest.approx(0.4901625)
    assert figure.high == pytest.approx(centre + half)


def test_wilson_interval_has_a_width_where_all_are_right() -> None:
    figure = proportion([True] * 20)
    assert figure.high == pytest.approx(1.0) and figure.low == pytest.approx(0.8388748)


def test_a_proportion_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="right is empty"):
        proportion([])


def test_mcnemar_counts_only_the_questions_that_differ() -> None:
    # 6 won, 1 lost, 13 alike: p = 2 (C(7,0) + C(7,1)) / 2^7 = 16/128.
    first = [False] * 6 + [True] + [True] * 13
    second = [True] * 6 + [False] + [True] * 13
    result = paired_difference(first, second)
    assert (result.won, result.lost, result.n) == (6, 1, 20)
    assert result.difference == pytest.approx(0.25)
    assert result.p_value == pytest.approx(0.125)
    # Agresti and Min: n* = 22, centre (6.5 - 1.5) / 22, variance ((6.5 + 1.5) / 22 - centre²) / 22.
    centre = 5 / 22
    half = 1.959963984540054 * sqrt((8 / 22 - centre**2) / 22)
    assert result.low == pytest.approx(centre - half)
    assert result.high == pytest.approx(centre + half)


def test_mcnemar_of_equal_answers_is_one() -> None:
    assert paired_difference([True, False], [True, False]).p_value == 1.0


def test_paired_difference_wants_equal_lengths() -> None:
    with pytest.raises(ValueError, match="2 answers against 1"):
        paired_difference([True, True], [True])


def test_mcnemar_counts_disagreements_only() -> None:
    assert mcnemar(0, 0) == 1.0
    assert mcnemar(1, 4, "greater") == pytest.approx(6 / 32)  # (5 choose 4 + 5 choose 5) / 2^5
    assert mcnemar(1, 4, "less") == pytest.approx(31 / 32)
    assert mcnemar(4, 1) == pytest.approx(12 / 32)


def test_a_fall_of_a_share_by_hand() -> None:
    """9 of 10 before, 3 of 8 now: the hypergeometric chance of at most 3 right now, of 12 right of 18."""
    right = [True] * 9 + [False], [True] * 3 + [False] * 5
    chance = sum(comb(8, k) * comb(10, 12 - k) for k in range(2, 4)) / comb(18, 12)
    assert fell(proportion(right[0]), proportion(right[1])) == pytest.approx(chance)
    assert fell(proportion(right[1]), proportion(right[0])) > 0.99, "it has risen"


def test_holm_by_hand() -> None:
    assert holm({"a": 0.01, "b": 0.04, "c": 0.03}) == pytest.approx({"a": 0.03, "b": 0.06, "c": 0.06})
    assert holm({}) == {} and holm({"a": 0.9, "b": 0.8})["a"] == 1.0


def test_worst_case_resampling() -> None:
    asked = np.ones((50, 2))
    # The first is weak in the second condition, the other in the first; both worst cases are 0.5 whatever is drawn
    # from questions that are all alike.
    first, second = np.tile([1.0, 0.5], (50, 1)), np.tile([0.5, 1.0], (50, 1))
    assert np.allclose(worst_case_resamples(asked, first, second, 300, 0), 0)
    right = np.zeros((200, 1))
    right[:100] = 1
    drawn = worst_case_resamples(np.ones((200, 1)), np.zeros((200, 1)), right, 2500, 1)
    # The standard error of a share of 0.5 among 200.
    assert len(drawn) == 2500
    assert drawn.mean() == pytest.approx(0.5, abs=0.005) and drawn.std() == pytest.approx(0.0354, abs=0.002)
    assert np.array_equal(drawn, worst_case_resamples(np.ones((200, 1)), np.zeros((200, 1)), right, 2500, 1))


def test_a_condition_that_was_hardly_asked_may_miss_a_resample() -> None:
    asked = np.zeros((30, 2))
    asked[:, 0], asked[0, 1] = 1, 1
    right = asked.copy()
    assert np.allclose(worst_case_resamples(asked, right, right, 200, 0), 0)


def test_a_paired_bootstrap_needs_the_counts_alone() -> None:
    # The standard error of a difference: sqrt((lost + won) / n - difference²) / sqrt(n).
    drawn = paired_resamples(20, 60, 400, 20_000, 0)
    assert drawn.mean() == pytest.approx(0.1, abs=0.001)
    assert drawn.std() == pytest.approx(sqrt((80 / 400 - 0.1**2) / 400), rel=0.02)
    # Resampled question by question, as several conditions at once have to be, it is the same distribution.
    before, after = np.zeros((400, 1)), np.zeros((400, 1))
    before[:20], after[20:80] = 1, 1
    long_way = worst_case_resamples(np.ones((400, 1)), before, after, 20_000, 0)
    for level in (0.05, 0.5, 0.95):
        assert np.quantile(drawn, level) == pytest.approx(np.quantile(long_way, level), abs=0.0026)
    assert np.array_equal(paired_resamples(0, 0, 10, 200, 0), np.zeros(200))
