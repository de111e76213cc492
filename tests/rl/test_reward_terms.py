import sys
import time
from collections.abc import Sequence

import pytest

from aot_core.rl.reward_terms import RewardError, RewardTimeoutError, checked


def hangs(_batch: Sequence[str]) -> list[float]:
    time.sleep(60)
    return []


@pytest.mark.parametrize(
    ("term", "error", "says"),
    [
        (lambda batch: [float("nan")] * len(batch), RewardError, r"reward 'mine' returned nan for the answer <x>"),
        (lambda batch: [None] * len(batch), RewardError, r"returned None for the answer <x>; return a finite number"),
        (lambda _batch: [0.0], RewardError, r"reward 'mine' returned 1 scores for 2 answers"),
        (lambda batch: [batch[0].nothing], RewardError, r"reward 'mine' raised AttributeError"),
        (lambda _batch: sys.exit(1), RewardError, r"reward 'mine' raised SystemExit"),
        (hangs, RewardTimeoutError, r"did not return within 0.2 seconds; fix it, or raise round.seconds"),
    ],
    ids=["nan", "no number", "wrong length", "raises", "exits", "hangs"],
)
def test_a_term_that_breaks_its_contract_is_named(term, error: type[Exception], says: str) -> None:
    held = checked("mine", term, 0.2, field="round.seconds", noun="answer", told=lambda one: f"<{one}>")
    with pytest.raises(error, match=says):
        held(["x", "y"])


def test_a_term_that_keeps_it_is_left_alone() -> None:
    held = checked("mine", lambda batch: [len(one) for one in batch], 5, field="f", noun="answer", told=str)
    assert held(["x", "yyy"]) == [1.0, 3.0]
