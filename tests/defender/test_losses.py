"""Objectives by config: TRL's names for them, what is refused, and halved micro-batches of each."""

from pathlib import Path

import pytest
import torch

from aot_core.contracts.base import decisive
from aot_core.contracts.defender_round import DefenderRoundConfig
from aot_core.defender.grpo import grpo_arguments


@pytest.mark.parametrize(
    ("loss", "stock", "level", "high"),
    [
        ("dapo", "dapo", "token", 0.28),
        ("dr_grpo", "dr_grpo", "token", 0.28),
        ("cispo", "cispo", "token", 1.28),
        ("gspo", "grpo", "sequence", 0.28),
        ("sapo", "sapo", "token", 0.28),
    ],
)
def test_a_loss_is_trl_s(loss: str, stock: str, level: str, high: float, tmp_path: Path) -> None:
    arguments = grpo_arguments(DefenderRoundConfig.model_validate({"loss": loss}), tmp_path, "cpu")
    assert (arguments.loss_type, arguments.importance_sampling_level, arguments.epsilon_high) == (stock, level, high)
    assert arguments.delta is None


def test_the_dual_clip_is_trl_s_delta(tmp_path: Path) -> None:
    assert grpo_arguments(DefenderRoundConfig(clip_ratio_dual=3.0), tmp_path, "cpu").delta == 3.0


def test_trl_s_delta_is_the_dual_clip() -> None:
    """max(min(r A, clip(r) A), c A) where A < 0 (arXiv 1912.09729, equation 5), and no change where A > 0."""
    r, c, low, high = torch.linspace(0.1, 9, 90), 3.0, 0.2, 0.28
    for advantage in (-1.7, 0.6):
        stock = torch.min(r.clamp(max=c) * advantage, r.clamp(1 - low, 1 + high) * advantage)
        clipped = torch.min(r * advantage, r.clamp(1 - low, 1 + high) * advantage)
        dual = clipped.clamp(min=c * advantage) if advantage < 0 else clipped
        torch.testing.assert_close(stock, dual)


@pytest.mark.parametrize("loss", ["cispo", "sapo"])
def test_a_dual_clip_without_a_clip_is_refused_by_name(loss: str) -> None:
    with pytest.raises(
        ValueError, match=f'clip_ratio_dual bounds a clipped ratio, which loss = "{loss}" does not have'
    ):
        DefenderRoundConfig.model_validate({"loss": loss, "clip_ratio_dual": 3.0})


def test_a_dual_clip_inside_the_clip_is_refused() -> None:
    with pytest.raises(ValueError, match=r"clip_ratio_dual 1.2 must be above 1 \+ epsilon_high = 1.28"):
        DefenderRoundConfig(clip_ratio_dual=1.2)


def test_the_default_objective_changes_no_identity() -> None:
    assert not {"loss", "clip_ratio_dual"} & set(decisive(DefenderRoundConfig()))
