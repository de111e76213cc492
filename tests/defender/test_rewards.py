import pytest

from aot_core.defender.rewards import defender_reward


@pytest.mark.parametrize(
    ("completion", "reward"),
    [(r"\boxed{A}", 1.0), ("boxed (a)", 0.8), ("The answer is A.", 0.8), (r"\boxed{B}", 0.0), ("no idea", 0.0)],
)
def test_paper_reward(completion: str, reward: float) -> None:
    assert defender_reward(completion, "A", "ABCD") == pytest.approx(reward)
