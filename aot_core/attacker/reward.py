"""The Attacker's reward: integrity x validity x efficacy (arXiv 2602.22227, phase 2), every part kept for the log.

Verdicts (`validity`) and edited images flow in; the Defender, known only by its interface, is asked about the valid
ones; rewards come out.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
from PIL import Image

from aot_core.answers import letter_of
from aot_core.contracts.attack import RewardSettings
from aot_core.contracts.protocols import Answerer
from aot_core.contracts.scene import Box, Question
from aot_core.worlds.validity import Verdict, region_mask, visibly_changed


class SureAnswerer(Answerer, Protocol):
    """A Defender that also says how sure it is of each letter."""

    def letter_logprobs(self, images: Sequence[Image.Image], questions: Sequence[Question]) -> list[dict[str, float]]:
        """Log-probabilities by letter, one dict a question."""
        ...


@dataclass(frozen=True)
class Reward:
    """An edit's reward and its parts. What needs the Defender is 0 for invalid edits: it is not asked about
    them."""

    reward: float
    valid: bool
    ssim: float
    confidence: float
    efficacy: float
    """Share of wrong answers among the k, or the probability of one, 0..1."""
    success: float
    """Consecutive failure, 0 or 1, or its probability: the edit is valid and all k answers are wrong."""
    margin: float
    """logistic((best wrong letter's log-probability - right letter's) / scale), 0..1."""
    answers: tuple[str | None, ...]
    """The letters answered; None where an answer holds none. Empty where none was sampled."""
    diversity: float = 1.0
    """d: how far the edit differs from its group's other valid edits, 0..1; 1 where it has none, or is not measured."""
    learnability: float = 0.0
    """4 p (1 - p), 0..1, p being the probability of a right answer; 0 where the settings leave it out."""
    terms: Mapping[str, float] = field(default_factory=dict)
    """What the config's own terms gave, by name (`reward_terms`); nothing for invalid edits."""


def attack_rewards(
    settings: RewardSettings,
    answerer: SureAnswerer,
    images: Sequence[Image.Image],
    questions: Sequence[Question],
    verdicts: Sequence[Verdict],
    seed: int,
) -> list[Reward]:
    """Reward every edited image. Raises ValueError where the sequences differ in length."""
    if not len(images) == len(questions) == len(verdicts):
        raise ValueError(f"{len(images)} images, {len(questions)} questions, {len(verdicts)} verdicts: must agree")
    valid = [index for index, verdict in enumerate(verdicts) if verdict.valid]
    asked_images, asked = [images[i] for i in valid], [questions[i] for i in valid]
    expected = settings.efficacy == "expected"
    letters: list[tuple[str | None, ...]] = [()] * len(valid)
    if not expected:
        letters = answered_letters(answerer, asked_images, asked, settings.samples, settings.temperature, seed)
    logprobs: list[dict[str, float]] = [{}] * len(valid)
    if valid and (settings.dense or expected or settings.learnability):
        logprobs = answerer.letter_logprobs(asked_images, asked)
    rewards = [_invalid(verdict) for verdict in verdicts]
    for index, said, by_letter in zip(valid, letters, logprobs, strict=True):
        right = questions[index].answer
        wrong = (
            1 - probability(by_letter, right, settings.temperature)
            if expected
            else sum(letter != right for letter in said) / len(said)
        )
        margin = squashed_margin(by_letter, right, settings.margin_scale) if settings.dense else 0.0
        learnable = 0.0
        if settings.learnability:
            p = probability(by_letter, right, settings.temperature)
            learnable = 4 * p * (1 - p)
        rewards[index] = Reward(
            reward=combine(settings, verdicts[index].confidence, wrong, margin, learnable),
            valid=True,
            ssim=verdicts[index].ssim,
            confidence=verdicts[index].confidence,
            efficacy=wrong,
            success=wrong**settings.samples if expected else float(wrong == 1.0),
            margin=margin,
            answers=said,
            learnability=learnable,
        )
    return rewards


def combine(settings: RewardSettings, confidence: float, wrong: float, margin: float, learnable: float = 0.0) -> float:
    """confidence (floor + (1 - floor) ((1 - dense) efficacy + dense margin)), for a valid edit, in 0..1; efficacy is
    mixed with `learnable`, 4 p (1 - p), by `settings.learnability`.

    The parser's confidence is a factor, not only a threshold: without it the Attacker paints what just
    passes.
    """
    efficacy = float(wrong == 1.0) if settings.efficacy == "consecutive" else wrong
    efficacy = (1 - settings.learnability) * efficacy + settings.learnability * learnable
    mixed = (1 - settings.dense) * efficacy + settings.dense * margin
    return confidence * (settings.floor + (1 - settings.floor) * mixed)


def diversified(
    settings: RewardSettings,
    rewards: Sequence[Reward],
    images: Sequence[Image.Image],
    regions_P: Sequence[Sequence[Box]],
    group_size: int,
) -> list[Reward]:
    """The rewards times the diversity factor, group after group; as they are where the settings leave it out.

    Args:
        rewards, images: of P * `group_size` edits.
        regions_P: where the edits of each group were to be made.

    d is the mean, over the group's other valid edits, of the share of the regions' pixels that differ visibly, in
    units of `diversity_scale` and at most 1.
    """
    if not settings.diversity or group_size < 2:
        return list(rewards)
    scaled = list(rewards)
    for number, regions in enumerate(regions_P):
        valid = [i for i in range(number * group_size, (number + 1) * group_size) if rewards[i].valid]
        inside = region_mask(images[number * group_size].size, regions)
        for i in valid:
            apart = [float(visibly_changed(images[i], images[j])[inside].mean()) for j in valid if j != i]
            d = min(1.0, float(np.mean(apart)) / settings.diversity_scale) if apart else 1.0
            factor = 1 - settings.diversity + settings.diversity * d
            scaled[i] = replace(rewards[i], reward=rewards[i].reward * factor, diversity=d)
    return scaled


def probability(logprobs: dict[str, float], letter: str, temperature: float) -> float:
    """The probability of a letter at a temperature, the letters being all there is to say."""
    weights = {name: value / temperature for name, value in logprobs.items()}
    highest = max(weights.values())
    return math.exp(weights[letter] - highest) / sum(math.exp(value - highest) for value in weights.values())


def squashed_margin(logprobs: dict[str, float], right: str, scale: float) -> float:
    """logistic((max over wrong letters - right letter) / scale) of log-probabilities: 0.5 where they tie."""
    best_wrong = max(value for letter, value in logprobs.items() if letter != right)
    return 1 / (1 + math.exp(min(60.0, max(-60.0, -(best_wrong - logprobs[right]) / scale))))


def answered_letters(
    answerer: Answerer,
    images: Sequence[Image.Image],
    questions: Sequence[Question],
    samples: int,
    temperature: float,
    seed: int,
) -> list[tuple[str | None, ...]]:
    """The letters of `samples` answers to every question; None where an answer holds no letter."""
    if not images:
        return []
    completions = answerer.answer(images, questions, samples=samples, temperature=temperature, seed=seed)
    return [
        tuple(letter_of(text, question.options) for text in texts)
        for texts, question in zip(completions, questions, strict=True)
    ]


def _invalid(verdict: Verdict) -> Reward:
    return Reward(0.0, False, verdict.ssim, verdict.confidence, 0.0, 0.0, 0.0, ())
