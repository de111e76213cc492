"""An Attacker's round: propose, edit, check, ask the Defender, learn; again and again.

Targets (clean scenes that the frozen Defender answers right) flow in; the editor's weights and the attack policy
change in place; the curve and the best late edits come out. Shapes as in `flow_grpo`: _P proposals (those of one
scene side by side), _G edits a proposal.
"""

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from tqdm import trange

from aot_core.attacker.diffusion_nft import optimise_nft
from aot_core.attacker.editing import FlowEditor
from aot_core.attacker.flow_grpo import optimise, stochastic_steps
from aot_core.attacker.patience import Watch
from aot_core.attacker.reward import SureAnswerer
from aot_core.attacker.round_state import RoundHistory, RoundState, ScoredEdit
from aot_core.attacker.scenes import Target, draw, draw_each
from aot_core.attacker.scoring import sample_and_score, score_edits
from aot_core.attacker.tactics import AttackPolicy, Choice, mix, policy_loss
from aot_core.contracts.attacker_round import AttackerRoundConfig
from aot_core.contracts.protocols import Answerer, Editor
from aot_core.rl.advantages import group_advantages
from aot_core.rl.precision import warn_of_rounding
from aot_core.tracking.protocol import Tracker

MIX = "mix/"
"""What the names of the tactics' shares begin with in the curve."""


def play_round(
    editor: FlowEditor,
    policy: AttackPolicy,
    defender: SureAnswerer,
    targets: Sequence[Target],
    config: AttackerRoundConfig,
    tracker: Tracker,
    progress: Path | None = None,
    photo_judge: Answerer | None = None,
    look: Callable[[], float] | None = None,
) -> RoundHistory:
    """Train the editor and the attack policy against a frozen Defender. Logs `attacker/...` at every update.

    Args:
        progress: where checkpoints are written and, if a killed round left one, gone on from; editor and policy must
            then be those that the round began with.
        photo_judge: the model that `reward.validity.judge` names.
        look: the present Attacker's mean reward on held-out scenes, for a config with `patience`.

    Raises AttackError where scenes offer no place for edits or an edit has another size than its scene,
    EditorFaultError for edits that are not finite, NonFiniteLossError when the loss is NaN, ProgressError for another
    round's checkpoint, and what the Defender raises when it is down: the last checkpoint then stands.
    """
    warn_of_rounding("attacker_round", config.model, config.learning_rate)
    state = RoundState(editor, policy, targets, config)
    if progress is not None:
        state.resume(progress)
    watch: Watch | None = None
    if config.patience is not None:
        assert look is not None, "patience needs scenes to look at"
        watch = Watch(config.patience, state, look, tracker)
    bar = trange(state.update, config.updates, desc="attacker round", disable=None)
    for update in bar:
        if watch is not None and watch.ended:
            break
        started = time.monotonic()
        scored, metrics = play_update(state, defender, photo_judge)
        state.history.curve.append(metrics)
        state.history.edits += len(scored)
        # Seconds go to the tracker alone: the curve is part of the artifact, and equal rounds give equal artifacts.
        timed = {**metrics, "seconds": time.monotonic() - started}
        tracker.log_metrics({f"attacker/{name}": value for name, value in timed.items()}, step=update)
        bar.set_postfix(reward=f"{metrics['reward']:.3f}", success=f"{metrics['success']:.2f}")
        if config.patience is not None and update % config.patience.every == 0:
            state.history.best = []  # of the updates since the last look: which will be the last fifth is not known
        if config.patience is not None or update >= config.updates - max(1, config.updates // 5):
            state.history.best = best_edits([*state.history.best, *scored], config.gallery_rows)
        state.update = update + 1
        if watch is not None:
            watch.after_update()
        if progress is not None and config.checkpoint_every and state.update % config.checkpoint_every == 0:
            state.save(progress)
    bar.close()
    state.put_average()
    if watch is not None:
        state.put_kept()
        assert config.patience is not None
        state.history.best_update = watch.best * config.patience.every
    return state.history


def play_update(
    state: RoundState, defender: SureAnswerer, photo_judge: Answerer | None = None
) -> tuple[list[ScoredEdit], dict[str, float]]:
    """One update: new edits of scenes drawn at random, what they earn, and what editor and policy learn from it."""
    editor, policy, config, update = state.editor, state.policy, state.config, state.update
    attempts_P = draw(state.rng, state.targets, config.proposals, policy, config.scenes, config.proposals_per_scene)
    with state.old_policy():
        edits, scored = sample_and_score(
            editor,
            defender,
            attempts_P,
            config,
            state.generator,
            config.seed * 100_003 + update,
            # Forward-process learning needs no noise on the way: its edits follow the ODE.
            stochastic=range(0) if config.nft else stochastic_steps(config.sampling, update, config.seed),
            photo_judge=photo_judge,
        )
    rewards_PG = torch.tensor([edit.reward.reward for edit in scored]).view(-1, config.group_size)
    advantages_PG = None
    if config.scaling == "prompt":
        scenes_P = [attempt.target.sample.sample_id for attempt in attempts_P]
        advantages_PG = state.deviations.advantages(scenes_P, rewards_PG)
    metrics = summarise(scored)
    if config.nft is not None:
        given = config, config.nft, state.optimizer, state.generator, state.old_policy(), advantages_PG
        metrics |= optimise_nft(editor, edits, rewards_PG, *given)
        state.step_old()
    else:
        metrics |= optimise(editor, edits, rewards_PG, config, state.optimizer, advantages_PG)
    state.step_average()
    decisions_P = [attempt.decisions for attempt in attempts_P]
    metrics |= improve(policy, decisions_P, rewards_PG, config, state.policy_optimizer)
    if config.reward.diversity:
        metrics["diversity"] = float(np.mean([edit.reward.diversity for edit in scored]))
    for term in config.reward.terms:
        scores = [edit.reward.terms[term.name] for edit in scored if edit.reward.valid]
        metrics[f"term/{term.name}"] = float(np.mean(scores)) if scores else 0.0
    return scored, metrics


def measure(
    editor: Editor,
    policy: AttackPolicy,
    defender: SureAnswerer,
    targets: Sequence[Target],
    config: AttackerRoundConfig,
    photo_judge: Answerer | None = None,
) -> dict[str, float]:
    """The figures of `summarise` on as many edits as there are targets: each scene once (`draw_each`), proposals by the
    policy, edits along the deterministic flow. The random numbers are the same each time."""
    attempts = draw_each(np.random.default_rng([config.seed, 13]), targets, config.proposals, policy)
    images = [attempt.target.image for attempt in attempts]
    edited = editor.edit(images, [attempt.proposal.instruction for attempt in attempts], seed=config.seed)
    return summarise(score_edits(defender, attempts, edited, config, config.seed, photo_judge))


def improve(
    policy: AttackPolicy,
    decisions_P: Sequence[Sequence[Choice]],
    rewards_PG: torch.Tensor,
    config: AttackerRoundConfig,
    optimizer: torch.optim.Optimizer,
) -> dict[str, float]:
    """One policy-gradient step on what was proposed: a proposal's mean reward against that of the scene's others.

    Returns `tactics_kl`, `tactics_entropy` and the `mix` of tactics that the batch was proposed with.
    """
    shares = {f"{MIX}{name}": share for name, share in mix(decisions_P).items()}
    if config.proposals_per_scene < 2:
        return {"tactics_kl": 0.0, "tactics_entropy": 0.0, **shares}
    means = rewards_PG.mean(1).view(-1, config.proposals_per_scene)
    advantages = group_advantages(means, "batch").flatten()
    optimizer.zero_grad()
    loss, metrics = policy_loss(policy, decisions_P, advantages, config.tactics.kl)
    loss.backward()
    optimizer.step()
    return metrics | shares


def summarise(scored: Sequence[ScoredEdit]) -> dict[str, float]:
    """The batch's mean reward and its parts; efficacy and margin over the valid edits alone."""
    rewards = [edit.reward for edit in scored]
    valid = [reward for reward in rewards if reward.valid]
    return {
        "reward": float(np.mean([reward.reward for reward in rewards])),
        "success": float(np.mean([reward.success for reward in rewards])),
        "valid": len(valid) / len(rewards),
        "ssim": float(np.mean([reward.ssim for reward in rewards])),
        "confidence": float(np.mean([reward.confidence for reward in rewards])),
        "efficacy": float(np.mean([reward.efficacy for reward in valid])) if valid else 0.0,
        "margin": float(np.mean([reward.margin for reward in valid])) if valid else 0.0,
    }


def best_edits(scored: Sequence[ScoredEdit], count: int) -> list[ScoredEdit]:
    """The `count` valid edits of highest reward, no two of one scene."""
    ranked = sorted((edit for edit in scored if edit.reward.valid), key=lambda edit: -edit.reward.reward)
    chosen: dict[str, ScoredEdit] = {}
    for edit in ranked:
        chosen.setdefault(edit.target.sample.scene.scene_id, edit)
    return list(chosen.values())[:count]
