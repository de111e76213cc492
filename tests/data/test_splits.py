"""Splits share no source picture."""

from itertools import islice

import numpy as np
import pytest

from aot_core.contracts.scene import Split
from aot_core.data.splits import share_out
from aot_core.worlds.images import DataError

LEAST: dict[Split, int] = {"warm_start": 2, "train": 1, "evaluate": 2}


def wanted(warm_start: int, train: int, evaluate: int) -> dict[Split, int]:
    return {"warm_start": warm_start, "train": train, "evaluate": evaluate}


def test_a_source_that_ends_is_divided_in_proportion_without_remainder() -> None:
    shares = share_out(100, wanted(60, 30, 10), LEAST, np.random.default_rng(0))
    assert {split: len(share.indices) for split, share in shares.items()} == {
        "warm_start": 60,
        "train": 29,
        "evaluate": 11,
    }
    assert sorted(i for share in shares.values() for i in share.indices) == list(range(100))


def test_a_small_source_gives_every_split_what_it_needs() -> None:
    shares = share_out(4, wanted(140, 0, 40), LEAST, np.random.default_rng(0))
    assert {split: len(share.indices) for split, share in shares.items()} == {"warm_start": 2, "evaluate": 2}
    first = shares["warm_start"]
    assert list(islice(first.starting_at(0), 5)) == [*first.indices, *first.indices, first.indices[0]]
    assert list(islice(first.starting_at(3), 2)) == [first.indices[1], first.indices[0]]


def test_an_endless_source_is_dealt_out_in_turn() -> None:
    shares = share_out(None, wanted(5, 0, 5), LEAST, np.random.default_rng(0))
    assert list(islice(shares["warm_start"].starting_at(0), 3)) == [0, 2, 4]
    assert list(islice(shares["evaluate"].starting_at(10), 3)) == [21, 23, 25]


def test_too_small_a_source_says_what_is_needed() -> None:
    with pytest.raises(DataError, match=r"holds 4 images and the splits need 5 \(warm_start 2, train 1, evaluate 2\)"):
        share_out(4, wanted(1, 1, 1), LEAST, np.random.default_rng(0))
