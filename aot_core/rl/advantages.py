"""Group-relative advantages: a reward counts by how it compares with its siblings' of the same prompt.

Shapes: _P prompts (or scenes) in a batch, _G samples a group. Rewards come in as (P, G), advantages go out
alike.
"""

from typing import Literal

from torch import Tensor

Scaling = Literal["group", "batch", "none"]
"""What centred rewards are divided by: the group's own deviation (GRPO, arXiv 2402.03300), the batch's (a
nearly flat group is then not blown up), or nothing (Dr. GRPO, arXiv 2503.20783)."""

FLAT = 1e-6
"""A group whose rewards differ by less is flat: it teaches nothing."""


def group_advantages(rewards_PG: Tensor, scaling: Scaling = "group", epsilon: float = 1e-4) -> Tensor:
    """A = (r - mean of the group) / (deviation + epsilon), (P, G) to (P, G). Deviations are unbiased, as
    TRL's.

    With "batch" the deviation is that of the centred rewards, of all groups together.
    """
    _check(rewards_PG)
    centred_PG = rewards_PG - rewards_PG.mean(1, keepdim=True)
    if scaling == "none":
        return centred_PG
    if scaling == "batch":
        return centred_PG / (centred_PG.std() + epsilon)
    if scaling == "group":
        return centred_PG / (rewards_PG.std(1, keepdim=True) + epsilon)
    raise ValueError(f"scaling {scaling!r} is none of group, batch, none")


def flat_groups(rewards_PG: Tensor) -> Tensor:
    """(P,) of bool: the groups whose rewards are all equal."""
    _check(rewards_PG)
    return rewards_PG.amax(1) - rewards_PG.amin(1) < FLAT


def _check(rewards_PG: Tensor) -> None:
    if rewards_PG.ndim != 2 or rewards_PG.shape[1] < 2:
        raise ValueError(f"rewards are of shape {tuple(rewards_PG.shape)}; give (prompts, group) with a group of >= 2")
