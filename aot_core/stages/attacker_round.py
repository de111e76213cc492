"""`attacker_round`: data set, Attacker and frozen Defender in; the Attacker after Flow-GRPO, a gallery and
the curve out."""

import json

import numpy as np

from aot_core.attacker.editing import Attacker
from aot_core.attacker.reward import SureAnswerer, answered_letters
from aot_core.attacker.reward_terms import build_terms
from aot_core.attacker.round_state import RoundHistory
from aot_core.attacker.scenes import AttackError, Target, answered_right, load_targets
from aot_core.attacker.self_play import MIX, measure, play_round
from aot_core.attacker.tactics import AttackPolicy
from aot_core.contracts.attacker_round import AttackerRoundConfig, AttackerRoundInputs, AttackerRoundOutputs
from aot_core.data.gallery import GalleryRow, gallery
from aot_core.defender.checkpoints import load_defender
from aot_core.engine.context import StageContext
from aot_core.stages.helpers.judging import load_judge
from aot_core.stages.helpers.opponent import EndpointDefender
from aot_core.stages.helpers.pictures import keep_picture


def run_attacker_round(
    config: AttackerRoundConfig, inputs: AttackerRoundInputs, context: StageContext
) -> AttackerRoundOutputs:
    """Train the Attacker on scenes that the Defender answers right while they are clean."""
    build_terms(config.reward)  # a misspelt one is found before anything is loaded
    rng = np.random.default_rng([config.seed, 12])
    defender = _opponent(config, inputs, context)
    photo_judge = load_judge(config.reward.validity, inputs.judge, context)
    targets = load_targets(context.fetch(inputs.dataset), rng, config.candidates)
    right = answered_right(defender, targets, config.reward.samples, config.reward.temperature, config.seed)
    targets = [target for target, share in zip(targets, right, strict=True) if share == 1.0]
    if not targets:
        raise AttackError(
            f"the Defender answers none of {len(right)} clean scenes right every time, so there is nothing to attack; "
            "raise attacker_round.candidates or train the Defender longer"
        )
    folder = context.fetch(inputs.attacker)
    attacker = Attacker.load_trainable(
        context.model(inputs.attacker_base), folder, config.model, context.device, config.editor
    )
    policy = AttackPolicy() if config.tactics.start == "fresh" else AttackPolicy.load(folder)
    held_out = min(config.probe, max(1, len(targets) // 3))
    # A single target is probe and lesson both: there is nothing to hold out of.
    probe, lessons = targets[:held_out], targets[held_out:] or targets
    watched: list[Target] = []
    if config.patience is not None:
        count = min(config.patience.scenes, max(1, len(lessons) // 3))
        watched, lessons = lessons[:count], lessons[count:] or lessons

    def look() -> float:
        return measure(attacker, policy, defender, watched, config, photo_judge)["reward"]

    before = measure(attacker, policy, defender, probe, config, photo_judge)
    history = play_round(
        attacker, policy, defender, lessons, config, context.tracker, context.progress, photo_judge, look
    )
    after = measure(attacker, policy, defender, probe, config, photo_judge)
    for step, figures in ((0, before), (len(history.curve), after)):
        context.tracker.log_metrics({f"attacker/probe_{name}": value for name, value in figures.items()}, step=step)
    attacker.save(context.output)
    policy.save(context.output)
    (context.output / "curve.json").write_text(json.dumps(history.curve) + "\n")
    _show(history, defender, config, context)
    return AttackerRoundOutputs(
        edits=history.edits,
        probe=held_out,
        reward_before=before["reward"],
        reward_after=after["reward"],
        success_before=before["success"],
        success_after=after["success"],
        valid_before=before["valid"],
        valid_after=after["valid"],
        first_reward=history.first("reward"),
        last_reward=history.last("reward"),
        first_success=history.first("success"),
        last_success=history.last("success"),
        valid=history.last("valid"),
        ssim=history.last("ssim"),
        kl=history.last("kl"),
        clip_fraction=history.mean("clip_fraction"),
        flat_groups=history.mean("flat_groups"),
        tactics={name.removeprefix(MIX): history.last(name) for name in history.curve[-1] if name.startswith(MIX)},
        tactics_kl=history.last("tactics_kl"),
        updates=len(history.curve),
        best_update=history.best_update,
    )


def _opponent(config: AttackerRoundConfig, inputs: AttackerRoundInputs, context: StageContext) -> SureAnswerer:
    """Who is attacked: the endpoint that the config names, or else the campaign's Defender."""
    if config.opponent is not None:
        return EndpointDefender(config.opponent, context.scratch / "opponent")
    return load_defender(
        context.fetch(inputs.defender),
        context.model(inputs.defender_base),
        context.device,
        config.defender_dtype,
        max_new_tokens=config.max_new_tokens,
        offload=config.defender_offload,
    )


def _show(history: RoundHistory, defender: SureAnswerer, config: AttackerRoundConfig, context: StageContext) -> None:
    """Draw the best late edits, to be looked at: is it deception or a hole in the reward?"""
    if not history.best:
        return
    answers = answered_letters(
        defender,
        [edit.edited for edit in history.best],
        [edit.target.sample.question for edit in history.best],
        config.reward.samples,
        config.reward.temperature,
        config.seed,
    )
    rows = [
        GalleryRow(
            clean=edit.target.image,
            edited=edit.edited,
            question=edit.target.sample.question,
            edited_answers=said,
            caption=f"{edit.proposal.instruction} SSIM {edit.reward.ssim:.3f}, reward {edit.reward.reward:.2f}",
        )
        for edit, said in zip(history.best, answers, strict=True)
    ]
    page = gallery(rows, "The Attacker's best edits at the end of the round")
    keep_picture(context, "attacks", page)
