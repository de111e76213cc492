"""The Attacker's reward: integrity x validity x efficacy (arXiv 2602.22227, phase 2), every part kept for the log.

Verdicts (`validity`) and edited images flow in; the Defender, known only as somebody who can be asked, is
asked about the valid ones; rewards come out.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from PIL import Image

from aot_core.attacker.validity import Verdict
from aot_core.contracts.attack import RewardSettings
from aot_core.contracts.protocols import Answerer
from aot_core.contracts.scene import LETTERS, Question
from aot_core.data.answers import extract_letter


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
    """Share of wrong answers among the k, 0..1."""
    margin: float
    """logistic((best wrong letter's log-probability - right letter's) / scale), 0..1."""
    answers: tuple[str | None, ...]
    """The letters answered; None where an answer holds none."""

    @property
    def success(self) -> bool:
        """Consecutive failure: the edit is valid and every answer wrong."""
        return self.valid and self.efficacy == 1.0


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
    letters = answered_letters(answerer, asked_images, asked, settings.samples, settings.temperature, seed)
    margins = [0.0] * len(valid)
    if settings.dense and valid:
        logprobs = answerer.letter_logprobs(asked_images, asked)
        margins = [
            squashed_margin(by_letter, question.answer, settings.margin_scale)
            for by_letter, question in zip(logprobs, asked, strict=True)
        ]
    rewards = [_invalid(verdict) for verdict in verdicts]
    for index, said, margin in zip(valid, letters, margins, strict=True):
        wrong = sum(letter != questions[index].answer for letter in said) / len(said)
        rewards[index] = Reward(
            reward=combine(settings, verdicts[index].confidence, wrong, margin),
            valid=True,
            ssim=verdicts[index].ssim,
            confidence=verdicts[index].confidence,
            efficacy=wrong,
            margin=margin,
            answers=said,
        )
    return rewards


def combine(settings: RewardSettings, confidence: float, wrong: float, margin: float) -> float:
    """confidence (floor + (1 - floor) ((1 - dense) efficacy + dense margin)), for a valid edit, in 0..1.

    The parser's confidence is a factor, not only a threshold: without it the Attacker paints what just
    passes.
    """
    efficacy = wrong if settings.efficacy == "share" else float(wrong == 1.0)
    mixed = (1 - settings.dense) * efficacy + settings.dense * margin
    return confidence * (settings.floor + (1 - settings.floor) * mixed)


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
        tuple(extract_letter(text, LETTERS[: len(question.options)]) for text in texts)
        for texts, question in zip(completions, questions, strict=True)
    ]


def _invalid(verdict: Verdict) -> Reward:
    return Reward(0.0, False, verdict.ssim, verdict.confidence, 0.0, 0.0, ())
