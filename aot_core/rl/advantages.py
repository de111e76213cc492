"""Group-relative advantages: a reward is compared with the others of the same prompt.

Shapes: _P prompts (or scenes) in a batch, _G samples per group. Rewards are (P, G), and so are advantages.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor

Scaling = Literal["group", "batch", "none"]
"""What centred rewards are divided by: the group's own deviation (GRPO, arXiv 2402.03300), the batch's (a
nearly flat group is then not blown up), or nothing (Dr. GRPO, arXiv 2503.20783)."""

FLAT = 1e-6
"""A group whose rewards differ by less is flat: it teaches nothing."""


def group_advantages(rewards_PG: Tensor, scaling: Scaling = "group", epsilon: float = 1e-4) -> Tensor:
    """A = (r - mean of the group) / (deviation + epsilon), (P, G) to (P, G). Deviations are unbiased, as
    TRL's.

    With "batch" the deviation is that of the centred rewards of all groups together.
    """
    _check(rewards_PG)
    centred_PG = rewards_PG - rewards_PG.mean(1, keepdim=True)
    if scaling == "none":
        return centred_PG
    if scaling == "batch":
        return centred_PG / (centred_PG.std() + epsilon)
    if scaling == "group":
        return centred_PG / (rewards_PG.std(1, keepdim=True) + epsilon)
    raise ValueError(f"scaling {scaling!r} is not one of group, batch, none")


class PromptDeviations:
    """Advantages scaled by how much a prompt's rewards have varied so far: the per-prompt statistics of DDPO (arXiv
    2305.13301) and Flow-GRPO, for groups too small to tell their own deviation.

    A reward is centred by its own group's mean, not by a mean of the past: the policy that earned that is gone, and an
    Attacker's scene comes back with another instruction. What is remembered is how far groups spread around theirs.
    """

    def __init__(self, groups: int) -> None:
        """
        Args:
            groups: how many of a prompt's latest groups count.
        """
        self.groups = groups
        self._squares: dict[str, deque[tuple[float, int]]] = {}
        """By prompt: each group's sum of squared centred rewards, and its degrees of freedom."""

    def advantages(self, prompts_P: Sequence[str], rewards_PG: Tensor, epsilon: float = 1e-4) -> Tensor:
        """A = (r - mean of the group) / (deviation of the prompt's latest groups, with this one, + epsilon), (P, G) to
        (P, G). Raises ValueError where prompts and rewards differ in number."""
        _check(rewards_PG)
        if len(prompts_P) != len(rewards_PG):
            raise ValueError(f"{len(prompts_P)} prompts but {len(rewards_PG)} groups of rewards; give one each")
        centred_PG = rewards_PG - rewards_PG.mean(1, keepdim=True)
        for prompt, centred_G in zip(prompts_P, centred_PG, strict=True):
            seen = self._squares.setdefault(prompt, deque(maxlen=self.groups))
            seen.append((float(centred_G.square().sum()), len(centred_G) - 1))
        deviations_P = torch.tensor([self.deviation(prompt) for prompt in prompts_P]).to(centred_PG)
        return centred_PG / (deviations_P[:, None] + epsilon)

    def deviation(self, prompt: str) -> float:
        """The pooled, unbiased deviation of a prompt's remembered groups."""
        seen = self._squares[prompt]
        return (sum(square for square, _ in seen) / sum(freedom for _, freedom in seen)) ** 0.5

    def state(self) -> dict[str, list[tuple[float, int]]]:
        """What is remembered, for a checkpoint in JSON."""
        return {prompt: list(seen) for prompt, seen in self._squares.items()}

    def load(self, state: Mapping[str, Sequence[tuple[float, int]]]) -> None:
        """Restore what `state` returned."""
        self._squares = {
            prompt: deque(((float(square), int(freedom)) for square, freedom in seen), maxlen=self.groups)
            for prompt, seen in state.items()
        }


def flat_groups(rewards_PG: Tensor, least_deviation: float = 0.0) -> Tensor:
    """(P,) of bool: the groups whose rewards are all equal, or deviate (unbiased) by less than `least_deviation`."""
    _check(rewards_PG)
    return (rewards_PG.amax(1) - rewards_PG.amin(1) < FLAT) | (rewards_PG.std(1) < least_deviation)


def _check(rewards_PG: Tensor) -> None:
    if rewards_PG.ndim != 2 or rewards_PG.shape[1] < 2:
        raise ValueError(f"rewards are of shape {tuple(rewards_PG.shape)}; give (prompts, group) with a group of >= 2")
