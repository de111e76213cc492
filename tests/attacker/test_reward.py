import math
from collections.abc import Sequence

import pytest
from PIL import Image

from aot_core.attacker.reward import attack_rewards, combine, probability, squashed_margin
from aot_core.contracts.attack import RewardSettings
from aot_core.contracts.scene import Question, Sample
from aot_core.worlds.validity import Verdict


class Oracle:
    """Answers with the letters it was given: a Defender whose every answer is known in advance."""

    def __init__(self, letters: str) -> None:
        self.letters = letters
        self.asked = 0

    def answer(
        self,
        images: Sequence[Image.Image],
        questions: Sequence[Question],
        *,
        samples: int,
        temperature: float,  # noqa: ARG002
        seed: int,  # noqa: ARG002
    ) -> list[list[str]]:
        self.asked += len(images)
        return [[f"\\boxed{{{letter}}}" for letter in self.letters[:samples]] for _ in questions]

    def letter_logprobs(self, images: Sequence[Image.Image], questions: Sequence[Question]) -> list[dict[str, float]]:
        return [{"A": -1.0, "B": -3.0} for _, _ in zip(images, questions, strict=True)]


def verdict(valid: bool = True, confidence: float = 0.9) -> Verdict:
    return Verdict(0.95, 0.0, confidence, valid, (), (), intact=True, confined=True, semantic=True)


SETTINGS = RewardSettings(samples=3, efficacy="share", dense=0.5, margin_scale=2.0, floor=0.2)


def test_reward_is_confidence_times_floor_and_efficacy(red_ring_sample: tuple[Sample, Image.Image]):
    sample, image = red_ring_sample
    right = sample.question.answer
    wrong = "B" if right == "A" else "A"
    (reward,) = attack_rewards(SETTINGS, Oracle(wrong + wrong + right), [image], [sample.question], [verdict()], 0)
    margin = squashed_margin({"A": -1.0, "B": -3.0}, right, 2.0)
    assert reward.efficacy == pytest.approx(2 / 3)
    assert reward.reward == pytest.approx(0.9 * (0.2 + 0.8 * (0.5 * 2 / 3 + 0.5 * margin)))
    assert not reward.success
    assert reward.answers == (wrong, wrong, right)


def test_expected_efficacy_is_the_mean_over_all_answers_and_asks_for_none(red_ring_sample: tuple[Sample, Image.Image]):
    sample, image = red_ring_sample
    settings = SETTINGS.model_copy(update={"efficacy": "expected", "dense": 0.0, "temperature": 2.0})
    oracle = Oracle("")
    (reward,) = attack_rewards(settings, oracle, [image], [sample.question], [verdict()], 0)
    # Log-probabilities -1 and -3, halved by the temperature: the letters' odds are e to 1.
    wrong = 1 / (1 + math.e) if sample.question.answer == "A" else math.e / (1 + math.e)
    assert reward.efficacy == pytest.approx(wrong)
    assert reward.success == pytest.approx(wrong**3)
    assert reward.reward == pytest.approx(0.9 * (0.2 + 0.8 * wrong))
    assert oracle.asked == 0


def test_a_probability_is_the_softmax_of_the_letters_alone_and_never_overflows():
    assert probability({"A": math.log(0.3), "B": math.log(0.1)}, "A", 1.0) == pytest.approx(0.75)
    assert probability({"A": -1e4, "B": 0.0}, "A", 0.1) == 0.0


def test_consecutive_failure_needs_every_answer_wrong(red_ring_sample: tuple[Sample, Image.Image]):
    sample, image = red_ring_sample
    wrong = "B" if sample.question.answer == "A" else "A"
    settings = SETTINGS.model_copy(update={"efficacy": "consecutive", "dense": 0.0})
    (reward,) = attack_rewards(settings, Oracle(wrong * 3), [image], [sample.question], [verdict()], 0)
    assert reward.success
    assert reward.reward == pytest.approx(0.9)
    assert combine(settings, 1.0, 2 / 3, 0.9) == pytest.approx(0.2)


def test_invalid_edits_earn_nothing_and_are_not_asked_about(red_ring_sample: tuple[Sample, Image.Image]):
    sample, image = red_ring_sample
    oracle = Oracle("BBB")
    rewards = attack_rewards(SETTINGS, oracle, [image] * 2, [sample.question] * 2, [verdict(False), verdict()], 0)
    assert oracle.asked == 1
    assert rewards[0].reward == 0.0
    assert not rewards[0].success
    assert rewards[1].reward > 0


def test_margin_is_half_at_a_tie_and_never_overflows():
    assert squashed_margin({"A": -1.0, "B": -1.0}, "A", 4.0) == 0.5
    assert squashed_margin({"A": -1.0, "B": -3.0}, "A", 2.0) == pytest.approx(1 / (1 + math.e))
    assert squashed_margin({"A": 0.0, "B": -1e9}, "A", 1.0) == pytest.approx(0.0)


def test_lengths_must_agree(red_ring_sample: tuple[Sample, Image.Image]):
    sample, image = red_ring_sample
    with pytest.raises(ValueError, match="must agree"):
        attack_rewards(SETTINGS, Oracle("A"), [image], [sample.question], [], 0)
