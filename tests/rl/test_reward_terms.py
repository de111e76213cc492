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
        (lambda batch: [float("nan")] * len(batch), RewardError, r"reward 'mine' is nan for the answer <x>"),
        (lambda _batch: [0.0], RewardError, r"reward 'mine' gave 1 scores for 2 answers"),
        (lambda batch: [batch[0].nothing], RewardError, r"reward 'mine' raised AttributeError"),
        (hangs, RewardTimeoutError, r"did not come back within 0.2 seconds; mend it, or raise round.seconds"),
    ],
    ids=["nan", "wrong length", "raises", "hangs"],
)
def test_a_term_that_breaks_its_contract_is_named(term, error: type[Exception], says: str) -> None:
    held = checked("mine", term, 0.2, field="round.seconds", noun="answer", told=lambda one: f"<{one}>")
    with pytest.raises(error, match=says):
        held(["x", "y"])


def test_a_term_that_keeps_it_is_left_alone() -> None:
    held = checked("mine", lambda batch: [len(one) for one in batch], 5, field="f", noun="answer", told=str)
    assert held(["x", "yyy"]) == [1.0, 3.0]
