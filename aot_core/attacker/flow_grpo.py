"""Flow-GRPO (arXiv 2505.05470): the editor's denoising steps trained by group-relative policy optimisation.

    scenes -> conditions -> rollout: G edits each, noise at some steps, the ODE elsewhere
           -> verdicts and rewards (handed in) -> advantages -> clipped updates of the stochastic steps

With a window (MixGRPO, arXiv 2507.21802; Flow-GRPO-Fast) a group branches where its window begins: everything before,
and the editor's pass at that step in sampling and in training alike, is computed once a scene instead of G times.

Shapes: _P scenes a batch, _G edits a scene, B = P * G edits in all (group after group), _T trained denoising steps.
Latents are (B, C, h, w).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from aot_core.attacker.conditioning import Conditioning
from aot_core.attacker.editing import FlowEditor
from aot_core.attacker.flow_sde import ode_step, stochastic_step
from aot_core.contracts.attacker_round import AttackerRoundConfig, SamplingSettings
from aot_core.contracts.errors import NonFiniteLossError
from aot_core.rl.advantages import flat_groups, group_advantages
from aot_core.rl.gradients import clip_gradients
from aot_core.rl.surrogate import clipped_surrogate, gaussian_kl


class EditorFaultError(ValueError):
    """The editor produced latents that are not finite."""


@dataclass(frozen=True)
class Transition:
    """One trained step of all B edits, as it was sampled."""

    time: float
    next_time: float
    latents: Tensor
    """(B, C, h, w), as they were passed to the editor."""
    next_latents: Tensor
    """(B, C, h, w), float32: as they were drawn. Rounded to the editor's precision they would have another
    log-probability."""
    old_logprob: Tensor
    """(B,)"""
    old_mean: Tensor
    """(B, C, h, w), float32: the transition's mean when it was sampled."""
    reference_mean: Tensor | None
    """(B, C, h, w): the transition's mean under the reference weights; None without KL."""
    alike: int = 1
    """How many neighbouring edits share `latents` and condition: the group size where it branches, else 1."""


@dataclass(frozen=True)
class Rollout:
    condition: Conditioning
    transitions_T: list[Transition]
    latents: Tensor
    """(B, C, h, w): the finished edits."""


def stochastic_steps(settings: SamplingSettings, update: int = 0, seed: int = 0) -> range:
    """The steps that are stochastic and trained at an update (from 0): a function of its arguments alone, so that a
    killed round finds its place."""
    window = settings.window
    if window is None:
        return range(settings.sde_steps)
    places = settings.steps - window.size - window.start
    turn = update // window.every
    start = window.start
    if window.move == "sliding":
        start += turn % places
    elif window.move == "sampled":
        start += int(np.random.default_rng([seed, 17, turn]).integers(places))
    return range(start, start + window.size)


def sampling_times(sigmas: list[float], settings: SamplingSettings, stochastic: range) -> list[float]:
    """The flow times of an edit: the schedule's, or fewer of them once the window is past."""
    finish = settings.window.finish if settings.window is not None else None
    end = stochastic.stop
    left = len(sigmas) - 1 - end
    if finish is None or finish >= left:
        return sigmas
    return sigmas[:end] + [sigmas[end + round(left * part / finish)] for part in range(finish + 1)]


@torch.no_grad()
def rollout(
    editor: FlowEditor,
    condition_P: Conditioning,
    group_size: int,
    settings: SamplingSettings,
    generator: torch.Generator,
    *,
    with_reference: bool,
    stochastic: range | None = None,
) -> Rollout:
    """Sample `group_size` edits of every condition. The last step is always the ODE's: its noise would stay.

    Args:
        stochastic: the steps with noise, which are trained; by default those of the first update.

    Raises EditorFaultError where the finished latents are not finite.
    """
    condition = condition_P.repeat(group_size)
    stochastic = stochastic_steps(settings) if stochastic is None else stochastic
    # A group is one row up to its branching and G rows from there on.
    shared = settings.window is not None
    if settings.shared_noise:
        latents = editor.noise(len(condition_P), generator)
        latents = latents if shared else latents.repeat_interleave(group_size, 0)
    else:
        latents = editor.noise(len(condition), generator)
    sigmas = sampling_times(editor.sigmas(settings.steps).tolist(), settings, stochastic)
    transitions: list[Transition] = []
    for step, (time, next_time) in enumerate(pairwise(sigmas)):
        times = latents.new_full((len(latents),), time)
        given = condition_P if shared else condition
        velocity = editor.velocity(latents, times, given)
        if step not in stochastic:
            latents = ode_step(latents, velocity, time, next_time)
            continue
        reference = editor.reference_velocity(latents, times, given) if with_reference else None
        alike = group_size if shared else 1
        if shared:
            latents, velocity = latents.repeat_interleave(alike, 0), velocity.repeat_interleave(alike, 0)
            reference = None if reference is None else reference.repeat_interleave(alike, 0)
            shared = False
        moved = stochastic_step(latents, velocity, time, next_time, settings, generator=generator)
        reference_mean = None
        if reference is not None:
            drawn = moved.next_latents
            reference_mean = stochastic_step(latents, reference, time, next_time, settings, next_latents=drawn).mean
        transitions.append(
            Transition(time, next_time, latents, moved.next_latents, moved.logprob, moved.mean, reference_mean, alike)
        )
        latents = moved.next_latents.to(latents.dtype)
    if not bool(latents.isfinite().all()):
        broken = int((~latents.isfinite().flatten(1).all(1)).sum())
        raise EditorFaultError(
            f"attacker_round: {broken} of {len(latents)} edits are not finite (NaN or infinite latents); the editor's "
            "weights are broken or its precision is too low: take an earlier Attacker, lower "
            "attacker_round.learning_rate, or set model.dtype to bfloat16 or float32"
        )
    return Rollout(condition, transitions, latents)


def joined(parts: Sequence[Rollout], condition_P: Conditioning, group_size: int) -> Rollout:
    """Rollouts of a batch's scenes, part after part, as one.

    Args:
        condition_P: of the whole batch.
    """
    if len(parts) == 1:
        return parts[0]
    transitions = []
    for same_step in zip(*(part.transitions_T for part in parts), strict=True):
        means = [transition.reference_mean for transition in same_step if transition.reference_mean is not None]
        transitions.append(
            replace(
                same_step[0],
                latents=torch.cat([transition.latents for transition in same_step]),
                next_latents=torch.cat([transition.next_latents for transition in same_step]),
                old_logprob=torch.cat([transition.old_logprob for transition in same_step]),
                old_mean=torch.cat([transition.old_mean for transition in same_step]),
                reference_mean=torch.cat(means) if means else None,
            )
        )
    return Rollout(condition_P.repeat(group_size), transitions, torch.cat([part.latents for part in parts]))


def optimise(
    editor: FlowEditor,
    edits: Rollout,
    rewards_PG: Tensor,
    config: AttackerRoundConfig,
    optimizer: torch.optim.Optimizer,
    advantages_PG: Tensor | None = None,
) -> dict[str, float]:
    """Train on a batch of edits, `config.iterations` passes over all trained steps.

    Args:
        advantages_PG: by default the rewards' own, scaled as the config says.

    Groups whose rewards are all equal are dropped; with none left nothing is done. Returns the means of
    `clip_fraction`, `kl` and `grad_norm`, and `flat_groups`. Raises NonFiniteLossError before a weight takes
    harm.
    """
    flat_P = flat_groups(rewards_PG, config.least_deviation)
    metrics = {"flat_groups": float(flat_P.float().mean()), "clip_fraction": 0.0, "kl": 0.0, "grad_norm": 0.0}
    if advantages_PG is None:
        assert config.scaling != "prompt", "what a prompt's rewards varied by is known to the round alone"
        advantages_PG = group_advantages(rewards_PG, config.scaling)
    advantages = advantages_PG.flatten()
    kept = (~flat_P).repeat_interleave(rewards_PG.shape[1]).nonzero().flatten()
    if len(kept) == 0:
        return metrics
    for _ in range(config.iterations):
        optimizer.zero_grad()
        # One update a pass, from all trained steps together: updates from a step each would mostly follow noise.
        for transition in edits.transitions_T:
            # Edits that are alike go through the editor as one: groups are kept or dropped whole.
            for chunk in kept.split(config.micro_batch * transition.alike):
                loss, parts = step_loss(editor, edits.condition, transition, advantages, chunk, config)
                if not math.isfinite(float(loss.detach())):
                    raise NonFiniteLossError(
                        f"attacker_round: the loss is {float(loss.detach())} at flow time {transition.time:.2f}; "
                        "lower attacker_round.learning_rate or raise attacker_round.kl"
                    )
                share = len(chunk) / len(kept) / len(edits.transitions_T)
                (loss * share).backward()
                for name, value in parts.items():
                    metrics[name] += value * share / config.iterations
        norm = clip_gradients(editor.trainable(), config.max_grad_norm, "attacker_round")
        metrics["grad_norm"] += norm / config.iterations
        optimizer.step()
    return metrics


def step_loss(
    editor: FlowEditor,
    condition: Conditioning,
    transition: Transition,
    advantages: Tensor,
    chunk: Tensor,
    config: AttackerRoundConfig,
) -> tuple[Tensor, dict[str, float]]:
    """Clipped surrogate plus KL of one trained step, on the edits numbered `chunk` (indices into B).

    Log-probability and KL are means over the latents' dimensions and use the same deviation. Returns the loss
    and `clip_fraction` and `kl`.
    """
    moved = stochastic_step(
        transition.latents[chunk],
        step_velocity(editor, condition, transition, chunk),
        transition.time,
        transition.next_time,
        config.sampling,
        next_latents=transition.next_latents[chunk],
    )
    log_ratio = moved.logprob - transition.old_logprob[chunk]
    if config.ratio == "guard":
        # GRPO-Guard (arXiv 2510.22319): on average over samples, log r is minus the KL between the two transitions, and
        # its spread is |difference of the means| / std, which depends on the step. Both are removed.
        apart = gaussian_kl(moved.mean, transition.old_mean[chunk], moved.std).flatten(1).mean(1)
        log_ratio = (log_ratio + apart) * moved.std
    loss, parts = clipped_surrogate(
        log_ratio,
        torch.zeros_like(log_ratio),
        advantages[chunk.cpu()].to(log_ratio),
        config.clip_low,
        config.clip_high,
        config.clip_ratio_dual,
    )
    if config.ratio == "guard":
        loss = loss / (transition.time - transition.next_time)
    metrics = {"clip_fraction": parts["clip_fraction"], "kl": 0.0}
    if transition.reference_mean is not None:
        kl = gaussian_kl(moved.mean, transition.reference_mean[chunk], moved.std).mean()
        metrics["kl"] = float(kl.detach())
        loss = loss + config.kl * kl
    return loss, metrics


def step_velocity(editor: FlowEditor, condition: Conditioning, transition: Transition, chunk: Tensor) -> Tensor:
    """The editor's velocities at a trained step for the edits numbered `chunk`; one pass for all that are alike,
    through which the gradients of all of them come back."""
    if transition.alike == 1:
        times = transition.latents.new_full((len(chunk),), transition.time)
        return editor.velocity(transition.latents[chunk], times, condition.select(chunk))
    groups, number_of = torch.unique(chunk // transition.alike, return_inverse=True)
    first = groups * transition.alike
    times = transition.latents.new_full((len(first),), transition.time)
    return editor.velocity(transition.latents[first], times, condition.select(first))[number_of]
