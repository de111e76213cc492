"""Scenes as Attackers edit them: what an evaluation asks the Defender about.

    clean scenes, an Attacker -> proposals -> edits -> verdicts -> the valid ones, as a `Condition`

An evaluation's conditions know of no Attacker, and an Attacker of no evaluation; they meet here.
"""

from functools import partial
from pathlib import Path

import numpy as np
from PIL.Image import Image
from tqdm import tqdm

from aot_core.attacker.editing import Attacker
from aot_core.attacker.scenes import Target, propose_for
from aot_core.attacker.tactics import AttackPolicy
from aot_core.contracts.artifact import ArtifactRef
from aot_core.contracts.evaluate import EvaluateConfig, EvaluateInputs, adversary_condition, attacker_condition
from aot_core.contracts.protocols import Answerer
from aot_core.contracts.scene import Sample
from aot_core.data.dataset import load_image, save_image
from aot_core.engine.context import StageContext
from aot_core.evaluation.items import Condition, edit_kind, item_id
from aot_core.stages.helpers.judging import load_judge
from aot_core.worlds.opening import world_of

_CHUNK = 64
"""Scenes edited together: it bounds the pictures in memory."""


def attacked_conditions(
    config: EvaluateConfig, inputs: EvaluateInputs, context: StageContext, clean: Condition
) -> tuple[list[Condition], dict[str, float]]:
    """The clean scenes as every Attacker edits them, and the share of its edits that were valid, by condition.

    A condition holds valid edits alone; an Attacker without any has none. Raises ValueError where Attackers come
    without their base.
    """
    players = players_of(inputs)
    if players and inputs.attacker_base is None:
        raise ValueError("attackers are given without attacker_base; name the base that they were trained from")
    photo_judge = load_judge(config.validity, inputs.judge, context) if players else None
    conditions: list[Condition] = []
    valid: dict[str, float] = {}
    for name, reference in players:
        assert inputs.attacker_base is not None
        weights = context.fetch(reference)
        attacker = Attacker.load(context.model(inputs.attacker_base), weights, context.device, steps=config.steps)
        policy = AttackPolicy.load(weights)
        condition, valid[name] = attack(config, attacker, policy, clean, name, context.scratch / name, photo_judge)
        if condition.samples:
            conditions.append(condition)
    return conditions, valid


def players_of(inputs: EvaluateInputs) -> list[tuple[str, ArtifactRef]]:
    """(condition, Attacker): those of this campaign's rounds, then those of other campaigns."""
    numbers = inputs.numbers or tuple(range(1, len(inputs.attackers) + 1))
    players = [(attacker_condition(n), reference) for n, reference in zip(numbers, inputs.attackers, strict=True)]
    return players + [(adversary_condition(n), reference) for n, reference in enumerate(inputs.adversaries, start=1)]


def attack(
    config: EvaluateConfig,
    attacker: Attacker,
    policy: AttackPolicy,
    clean: Condition,
    name: str,
    folder: Path,
    photo_judge: Answerer | None,
) -> tuple[Condition, float]:
    """Let one Attacker edit the clean scenes; every Attacker gets the same random numbers."""
    told: dict[str, str] = {}
    kinds: dict[str, str] = {}
    kept: list[Sample] = []
    edits = 0
    starts = range(0, len(clean.samples), _CHUNK)
    for first in tqdm(starts, desc=f"edit {name}", unit="batch", disable=None):
        targets = [Target(sample, clean.picture(sample)) for sample in clean.samples[first : first + _CHUNK]]
        # A question's own generator: its proposal does not depend on which others are asked.
        attempts = [
            attempt
            for target in targets
            if (attempt := propose_for(_rng(config.seed, target.sample), target, config.proposals, policy)) is not None
        ]
        if not attempts:
            continue
        chosen, proposals = [attempt.target for attempt in attempts], [attempt.proposal for attempt in attempts]
        cleans, asked = [target.image for target in chosen], [target.sample for target in chosen]
        edited = attacker.edit(cleans, [p.instruction for p in proposals], seed=config.seed + first)
        verdicts = world_of(asked[0]).check(config.validity, asked, proposals, cleans, edited, photo_judge)
        edits += len(edited)
        for sample, proposal, image, verdict in zip(asked, proposals, edited, verdicts, strict=True):
            if verdict.valid:
                save_image(folder, item_id(sample), image)
                told[sample.sample_id] = f"{proposal.instruction} SSIM {verdict.ssim:.3f}"
                kinds[sample.sample_id] = edit_kind(verdict.edits)
                kept.append(sample)
    return Condition(name, kept, partial(_open, folder), told, kinds), len(kept) / edits if edits else 0.0


def _rng(seed: int, sample: Sample) -> np.random.Generator:
    return np.random.default_rng([seed, int(item_id(sample), 16)])


def _open(folder: Path, sample: Sample) -> Image:
    return load_image(folder, f"images/{item_id(sample)}.png")
