"""Flow-GRPO (arXiv 2505.05470): the editor's denoising steps trained by group-relative policy optimisation.

    scenes -> conditions -> rollout: G edits each, SDE at the first steps
           -> verdicts and rewards (handed in) -> advantages -> clipped updates of the trained steps

Shapes: _P scenes a batch, _G edits a scene, B = P * G edits in all (group after group), _T trained denoising steps.
Latents are (B, C, h, w).
"""

import math
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from aot_core.attacker.conditions import Condition
from aot_core.attacker.editing import FlowEditor
from aot_core.attacker.flow_sde import ode_step, sde_step
from aot_core.contracts.attacker_round import AttackerRoundConfig, SamplingSettings
from aot_core.contracts.errors import NonFiniteLossError
from aot_core.rl.advantages import flat_groups, group_advantages
from aot_core.rl.surrogate import clipped_surrogate, gaussian_kl


@dataclass(frozen=True)
class Transition:
    """One trained step of all B edits, as it was sampled."""

    time: float
    next_time: float
    latents: Tensor
    next_latents: Tensor
    old_logprob: Tensor
    """(B,)"""
    reference_mean: Tensor | None
    """(B, C, h, w): the transition's mean under the reference weights; None without KL."""


@dataclass(frozen=True)
class Rollout:
    condition: Condition
    transitions_T: list[Transition]
    latents: Tensor
    """(B, C, h, w): the finished edits."""


@torch.no_grad()
def rollout(
    editor: FlowEditor,
    condition_P: Condition,
    group_size: int,
    settings: SamplingSettings,
    generator: torch.Generator,
    *,
    with_reference: bool,
) -> Rollout:
    """Sample `group_size` edits of every condition. The last step is always the ODE's: its noise would
    stay."""
    condition = condition_P.repeat(group_size)
    count = len(condition)
    if settings.shared_noise:
        latents = editor.noise(len(condition_P), generator).repeat_interleave(group_size, 0)
    else:
        latents = editor.noise(count, generator)
    sigmas = editor.sigmas(settings.steps).tolist()
    transitions: list[Transition] = []
    for step in range(settings.steps):
        time, next_time = sigmas[step], sigmas[step + 1]
        times = latents.new_full((count,), time)
        velocity = editor.velocity(latents, times, condition)
        if step >= settings.sde_steps:
            latents = ode_step(latents, velocity, time, next_time)
            continue
        step_of = partial(sde_step, level=settings.noise_level, cap=settings.noise_cap)
        moved = step_of(latents, velocity, time, next_time, generator=generator)
        next_latents = moved.next_latents.to(latents.dtype)
        reference_mean = None
        if with_reference:
            reference = editor.reference_velocity(latents, times, condition)
            reference_mean = step_of(latents, reference, time, next_time, next_latents=next_latents).mean
        transitions.append(Transition(time, next_time, latents, next_latents, moved.logprob, reference_mean))
        latents = next_latents
    return Rollout(condition, transitions, latents)


def optimise(
    editor: FlowEditor,
    edits: Rollout,
    rewards_PG: Tensor,
    config: AttackerRoundConfig,
    optimizer: torch.optim.Optimizer,
) -> dict[str, float]:
    """Train on a batch of edits, `config.iterations` passes over all trained steps.

    Groups whose rewards are all equal are dropped; with none left nothing is done. Returns the means of
    `clip_fraction`, `kl` and `grad_norm`, and `flat_groups`. Raises NonFiniteLossError before a weight takes
    harm.
    """
    flat_P = flat_groups(rewards_PG)
    metrics = {"flat_groups": float(flat_P.float().mean()), "clip_fraction": 0.0, "kl": 0.0, "grad_norm": 0.0}
    advantages = group_advantages(rewards_PG, config.scaling).flatten()
    kept = (~flat_P).repeat_interleave(rewards_PG.shape[1]).nonzero().flatten()
    if len(kept) == 0:
        return metrics
    for _ in range(config.iterations):
        optimizer.zero_grad()
        # One update a pass, from all trained steps together: updates from a step each would mostly follow noise.
        for transition in edits.transitions_T:
            for chunk in kept.split(config.micro_batch):
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
        norm = torch.nn.utils.clip_grad_norm_(editor.trainable(), config.max_grad_norm)
        metrics["grad_norm"] += float(norm) / config.iterations
        optimizer.step()
    return metrics


def step_loss(
    editor: FlowEditor,
    condition: Condition,
    transition: Transition,
    advantages: Tensor,
    chunk: Tensor,
    config: AttackerRoundConfig,
) -> tuple[Tensor, dict[str, float]]:
    """Clipped surrogate plus KL of one trained step, on the edits numbered `chunk` (indices into B).

    Log-probability and KL are means over the latents' dimensions and use the same deviation. Returns the loss
    and `clip_fraction` and `kl`.
    """
    settings = config.sampling
    latents = transition.latents[chunk]
    times = latents.new_full((len(chunk),), transition.time)
    velocity = editor.velocity(latents, times, condition.select(chunk))
    moved = sde_step(
        latents,
        velocity,
        transition.time,
        transition.next_time,
        level=settings.noise_level,
        cap=settings.noise_cap,
        next_latents=transition.next_latents[chunk],
    )
    loss, parts = clipped_surrogate(
        moved.logprob,
        transition.old_logprob[chunk],
        advantages[chunk.cpu()].to(moved.logprob),
        config.clip_low,
        config.clip_high,
    )
    metrics = {"clip_fraction": parts["clip_fraction"], "kl": 0.0}
    if transition.reference_mean is not None:
        kl = gaussian_kl(moved.mean, transition.reference_mean[chunk], moved.std).mean()
        metrics["kl"] = float(kl.detach())
        loss = loss + config.kl * kl
    return loss, metrics
