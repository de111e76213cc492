"""Forward-process learning: its loss by hand, its direction on the shipped editor, and a round that is killed."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from aot_core.attacker.diffusion_nft import nft_loss, optimality
from aot_core.attacker.editing import Attacker
from aot_core.attacker.flow_grpo import rollout
from aot_core.attacker.round_state import RoundState
from aot_core.attacker.scenes import Target
from aot_core.attacker.self_play import play_round
from aot_core.attacker.tactics import AttackPolicy
from aot_core.base_models.names import SHIPPED
from aot_core.contracts.attacker_round import AttackerRoundConfig, NftSettings, SamplingSettings, WindowSettings
from aot_core.contracts.scene import Sample
from aot_core.rl.advantages import flat_groups
from aot_core.rl.surrogate import clipped_surrogate
from aot_core.tracking.protocol import NullTracker
from tests.attacker.test_self_play import CONFIG, Down, Sure, weights

NFT = CONFIG.model_copy(
    update={
        "nft": NftSettings(old_rise=0.1),
        "sampling": SamplingSettings(steps=3, sde_steps=2, shared_noise=False),
        "group_size": 4,
    }
)


@pytest.fixture
def targets(red_ring_sample: tuple[Sample, Image.Image]) -> list[Target]:
    sample, image = red_ring_sample
    return [Target(sample.model_copy(update={"sample_id": f"s{number}"}), image) for number in range(3)]


def shipped() -> Attacker:
    return Attacker.load_trainable(str(SHIPPED / "aot-tiny-edit"), None, CONFIG.model)


def test_the_loss_by_hand() -> None:
    velocity, old, target = (torch.full((1, 1, 1, 2), x) for x in (2.0, 1.0, 4.0))
    # beta 0.5: v+ = 1.5, v- = 0.5; (1.5 - 4)^2 = 6.25, (0.5 - 4)^2 = 12.25.
    loss = nft_loss(velocity, old, target, torch.tensor([0.75]), 0.5)
    assert loss.item() == pytest.approx(0.75 * 6.25 + 0.25 * 12.25)


def test_its_minimum_is_the_old_velocity_and_two_r_less_one_of_the_way_to_the_target() -> None:
    old, target = torch.zeros(1, 1, 1, 1), torch.ones(1, 1, 1, 1)
    for r, beta in ((1.0, 1.0), (0.5, 1.0), (0.75, 2.0)):
        at = torch.linspace(-3, 3, 6001).view(-1, 1, 1, 1)
        losses = nft_loss(at, old.expand_as(at), target.expand_as(at), torch.full((len(at),), r), beta)
        assert at[losses.argmin()].item() == pytest.approx((2 * r - 1) / beta, abs=2e-3)


def test_an_edit_at_its_groups_mean_is_half_good() -> None:
    assert optimality(torch.tensor([0.0, 0.5, 7.0, -7.0])).tolist() == [0.5, 0.75, 1.0, 0.0]


def test_a_round_learns_and_a_killed_one_ends_with_the_same_bits(targets: list[Target], tmp_path: Path) -> None:
    whole, start = shipped(), weights(shipped())
    expected = play_round(whole, AttackPolicy(), Sure(), targets, NFT, NullTracker())
    assert not torch.equal(weights(whole), start)
    assert all(entry["clip_fraction"] == 0 for entry in expected.curve)
    killed = shipped()
    with pytest.raises(Down):
        play_round(killed, AttackPolicy(), Sure(fails_at=4), targets, NFT, NullTracker(), tmp_path)
    again = shipped()
    history = play_round(again, AttackPolicy(), Sure(), targets, NFT, NullTracker(), tmp_path)
    assert history.curve == expected.curve
    assert torch.equal(weights(again), weights(whole))


def test_the_old_policy_samples_and_follows(targets: list[Target]) -> None:
    editor = shipped()
    state = RoundState(editor, AttackPolicy(), targets, NFT)
    before = weights(editor).clone()
    with torch.no_grad():
        for parameter in editor.trainable():
            parameter.add_(1.0)
    with state.old_policy():
        assert torch.equal(weights(editor), before)
    assert torch.allclose(weights(editor), before + 1)
    state.update = 3  # eta = 0.3 of the old one stays
    state.step_old()
    with state.old_policy():
        assert torch.allclose(weights(editor), before + 0.7, atol=1e-5)


def test_edits_of_a_group_differ_by_their_initial_noise(targets: list[Target]) -> None:
    editor = shipped()
    condition = editor.encode([targets[0].image], ["Add an object at row 1, column 1."])
    edits = rollout(
        editor, condition, 3, NFT.sampling, torch.Generator().manual_seed(0), with_reference=False, stochastic=range(0)
    )
    assert edits.transitions_T == []
    assert not torch.equal(edits.latents[0], edits.latents[1])


@pytest.mark.parametrize("sampling", [SamplingSettings(), SamplingSettings(window=WindowSettings())])
def test_shared_noise_is_refused(sampling: SamplingSettings) -> None:
    with pytest.raises(ValueError, match=r"set sampling.shared_noise = false, and leave sampling.window out"):
        AttackerRoundConfig(nft=NftSettings(), sampling=sampling)


def test_groups_of_little_deviation_are_flat() -> None:
    rewards = torch.tensor([[0.5, 0.5, 0.5], [0.5, 0.51, 0.49], [0.1, 0.5, 0.9]])
    assert flat_groups(rewards).tolist() == [True, False, False]
    assert flat_groups(rewards, 0.05).tolist() == [True, True, False]


def test_the_dual_clip_bounds_what_a_bad_edit_costs() -> None:
    logprob, old, advantages = torch.tensor([2.0, 2.0]), torch.zeros(2), torch.tensor([-1.0, 1.0])
    plain, _ = clipped_surrogate(logprob, old, advantages, 0.2, 0.3)
    dual, metrics = clipped_surrogate(logprob, old, advantages, 0.2, 0.3, 3.0)
    ratio = float(torch.tensor(2.0).exp())
    assert plain.item() == pytest.approx((ratio - 1.3) / 2)
    assert dual.item() == pytest.approx((3.0 - 1.3) / 2)
    assert metrics["clip_fraction"] == 1.0
