"""Worst of n: of several edits of a scene by every Attacker, the one that a Defender is least likely to answer right.

    clean scenes, Attackers -> n edits each, valid ones -> the Defender's p of the right letter -> the lowest, a scene

A mean over one edit a scene hides what a league is for: a Defender that every Attacker fools now and then can have the
same mean as one that a single Attacker fools always (RAP, arXiv 2008.01825).
"""

from functools import partial

from PIL.Image import Image

from aot_core.attacker.editing import Attacker
from aot_core.attacker.reward import SureAnswerer, probability
from aot_core.attacker.tactics import AttackPolicy
from aot_core.contracts.evaluate import WORST_OF_N, EvaluateConfig, EvaluateInputs
from aot_core.contracts.scene import Sample
from aot_core.engine.context import StageContext
from aot_core.evaluation.items import Condition
from aot_core.stages.helpers.attacks import attack, players_of
from aot_core.stages.helpers.judging import load_judge

_CHUNK = 64
_APART = 1_000_003
"""Between the seeds of two edits of a scene: more than the seeds of an evaluation's batches are apart."""


def worst_of_n(
    config: EvaluateConfig, inputs: EvaluateInputs, context: StageContext, clean: Condition, defender: SureAnswerer
) -> list[Condition]:
    """The hardest of `worst_of` edits by every Attacker, as one condition; none where there is none to choose from.

    The first of an Attacker's edits is the one of its own condition. Scenes without any valid edit are left out.
    """
    players = players_of(inputs) if config.worst_of else []
    hardest: dict[str, tuple[float, Condition]] = {}
    for name, reference in players:
        assert inputs.attacker_base is not None, "the Attackers' own conditions come first"
        weights = context.fetch(reference)
        attacker = Attacker.load(context.model(inputs.attacker_base), weights, context.device, steps=config.steps)
        policy = AttackPolicy.load(weights)
        photo_judge = load_judge(config.validity, inputs.judge, context)
        for number in range(config.worst_of):
            drawn = config.model_copy(update={"seed": config.seed + number * _APART})
            folder = context.scratch / WORST_OF_N / f"{name}-{number}"
            condition, _ = attack(drawn, attacker, policy, clean, name, folder, photo_judge)
            for sample, p in zip(condition.samples, _right(defender, condition, config.temperature), strict=True):
                if sample.sample_id not in hardest or p < hardest[sample.sample_id][0]:
                    hardest[sample.sample_id] = p, condition
    chosen = [sample for sample in clean.samples if sample.sample_id in hardest]
    if not chosen:
        return []
    of = {name: condition for name, (_, condition) in hardest.items()}
    told = {name: condition.captions[name] for name, condition in of.items()}
    kinds = {name: condition.edits[name] for name, condition in of.items()}
    return [Condition(WORST_OF_N, chosen, partial(_open, of), told, kinds)]


def _right(defender: SureAnswerer, condition: Condition, temperature: float) -> list[float]:
    """The probability of the right letter to every question; greedy answers are ranked by that at temperature 1."""
    found: list[float] = []
    for first in range(0, len(condition.samples), _CHUNK):
        chunk = condition.samples[first : first + _CHUNK]
        questions = [sample.question for sample in chunk]
        by_letter = defender.letter_logprobs([condition.picture(sample) for sample in chunk], questions)
        found += [
            probability(letters, question.answer, temperature or 1.0)
            for letters, question in zip(by_letter, questions, strict=True)
        ]
    return found


def _open(conditions: dict[str, Condition], sample: Sample) -> Image:
    return conditions[sample.sample_id].picture(sample)
