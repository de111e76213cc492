"""DiffusionNFT (arXiv 2509.16117): an editor learns from rewards on the forward process, without log-probabilities.

    edits sampled by the old policy along the ODE -> rewards -> r in 0..1, how far an edit is above its group
    -> each edit noised anew: x_t = (1 - t) x_0 + t e -> the velocity drawn to e - x_0 where r is high, else away

The loss (equation 9; v is the flow's target e - x_0)

    r |v+ - v|^2 + (1 - r) |v- - v|^2,    v+ = (1 - beta) v_old + beta v_theta,   v- = (1 + beta) v_old - beta v_theta,

is minimal where v_theta = v_old + (2 r - 1) / beta (v - v_old): towards good edits, and as far away from bad ones. Any
solver may have made the edits.

Shapes as in `flow_grpo`: B = P * G edits, latents (B, C, h, w).
"""

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor

from aot_core.attacker.conditioning import Conditioning
from aot_core.attacker.editing import FlowEditor
from aot_core.attacker.flow_grpo import Rollout
from aot_core.contracts.attacker_round import AttackerRoundConfig, NftSettings
from aot_core.contracts.errors import NonFiniteLossError
from aot_core.rl.advantages import flat_groups, group_advantages
from aot_core.rl.gradients import clip_gradients


@dataclass(frozen=True)
class Draw:
    """A chunk of edits, noised to times of their own, and what the old policy and the reference say of them."""

    rows: Tensor
    """(b,) numbers among the B edits."""
    times: Tensor
    """(b,)"""
    latents: Tensor
    """(b, C, h, w): x_t."""
    target: Tensor
    """(b, C, h, w): e - x_0."""
    old: Tensor
    reference: Tensor | None


def optimality(advantages: Tensor) -> Tensor:
    """r = 1/2 + clip(A, -1, 1) / 2: the probability that an edit is a good one (section 3.3)."""
    return 0.5 + 0.5 * advantages.clamp(-1, 1)


def nft_loss(velocity: Tensor, old: Tensor, target: Tensor, r: Tensor, beta: float) -> Tensor:
    """(b,): the loss above, averaged over the latents' dimensions.

    Args:
        velocity, old, target: (b, C, h, w).
        r: (b,) in 0..1.
    """
    positive = ((1 - beta) * old + beta * velocity - target).square().flatten(1).mean(1)
    negative = ((1 + beta) * old - beta * velocity - target).square().flatten(1).mean(1)
    return r * positive + (1 - r) * negative


def optimise_nft(
    editor: FlowEditor,
    edits: Rollout,
    rewards_PG: Tensor,
    config: AttackerRoundConfig,
    settings: NftSettings,
    optimizer: torch.optim.Optimizer,
    generator: torch.Generator,
    old_policy: AbstractContextManager[None],
    advantages_PG: Tensor | None = None,
) -> dict[str, float]:
    """Train on a batch of edits, `config.iterations` passes with new times and noise.

    Args:
        old_policy: inside, the editor has the weights that sampled the edits.
        advantages_PG: by default the rewards' own, scaled as the config says.

    Returns the figures of `flow_grpo.optimise`: `kl` is the mean squared distance of the velocities from the
    reference's, and no ratio is clipped. Raises NonFiniteLossError before a weight takes harm.
    """
    flat_P = flat_groups(rewards_PG, config.least_deviation)
    metrics = {"flat_groups": float(flat_P.float().mean()), "clip_fraction": 0.0, "kl": 0.0, "grad_norm": 0.0}
    if advantages_PG is None:
        assert config.scaling != "prompt", "what a prompt's rewards varied by is known to the round alone"
        advantages_PG = group_advantages(rewards_PG, config.scaling)
    r = optimality(advantages_PG.flatten())
    kept = (~flat_P).repeat_interleave(rewards_PG.shape[1]).nonzero().flatten()
    if len(kept) == 0:
        return metrics
    with torch.no_grad(), old_policy:
        passes = [
            [draw for _ in range(settings.times) for draw in _draws(editor, edits, kept, config, generator)]
            for _ in range(config.iterations)
        ]
    for draws in passes:
        optimizer.zero_grad()
        metrics["kl"] += _accumulate(editor, edits.condition, draws, r, config, settings) / config.iterations
        norm = clip_gradients(editor.trainable(), config.max_grad_norm, "attacker_round")
        metrics["grad_norm"] += norm / config.iterations
        optimizer.step()
    return metrics


def _draws(
    editor: FlowEditor, edits: Rollout, kept: Tensor, config: AttackerRoundConfig, generator: torch.Generator
) -> list[Draw]:
    """All kept edits once, noised."""
    noise = editor.noise(len(edits.latents), generator)
    times = torch.rand(len(edits.latents), generator=generator).clamp(1e-3, 1 - 1e-3).to(edits.latents)
    made: list[Draw] = []
    for rows in kept.split(config.micro_batch):
        clean, e, t = edits.latents[rows], noise[rows].to(edits.latents), times[rows]
        share = t.view(-1, *[1] * (clean.ndim - 1))
        latents = (1 - share) * clean + share * e
        condition = edits.condition.select(rows)
        old = editor.velocity(latents, t, condition)
        reference = editor.reference_velocity(latents, t, condition) if config.kl else None
        made.append(Draw(rows, t, latents, e - clean, old, reference))
    return made


def _accumulate(
    editor: FlowEditor,
    condition: Conditioning,
    draws: Sequence[Draw],
    r: Tensor,
    config: AttackerRoundConfig,
    settings: NftSettings,
) -> float:
    """Add up the gradients of a pass; returns the mean squared distance from the reference."""
    edits = sum(len(draw.rows) for draw in draws)
    distance = 0.0
    for draw in draws:
        velocity = editor.velocity(draw.latents, draw.times, condition.select(draw.rows)).float()
        # In float32: the difference of two velocities is lost in the rounding of half precision.
        old, target = draw.old.float(), draw.target.float()
        loss = nft_loss(velocity, old, target, r[draw.rows.cpu()].to(velocity), settings.beta).mean()
        share = len(draw.rows) / edits
        if draw.reference is not None:
            apart = (velocity - draw.reference.float()).square().mean()
            distance += float(apart.detach()) * share
            loss = loss + config.kl * apart
        if not math.isfinite(float(loss.detach())):
            raise NonFiniteLossError(
                f"attacker_round: the loss is {float(loss.detach())}; lower attacker_round.learning_rate or raise "
                "attacker_round.kl"
            )
        (loss * share).backward()
    return distance
