"""A window of trained steps: where it lies, what a group shares, and that it changes no figure."""

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from aot_core.attacker.editing import Attacker
from aot_core.attacker.flow_grpo import Rollout, optimise, rollout, sampling_times, step_loss, stochastic_steps
from aot_core.contracts.attacker_round import AttackerRoundConfig, SamplingSettings
from aot_core.worlds.shapes import world

SCENES = [world.render((), world.Backdrop(level=level)) for level in (195, 215)]
TOLD = ["Add an object at row 2, column 3.", "Add an object at row 1, column 1."]
REWARDS_PG = torch.tensor([[1.0, 0.0, 0.2, 0.9], [0.0, 1.0, 0.3, 0.0]])
ADVANTAGES = REWARDS_PG.flatten() - 0.5


def config(sampling: SamplingSettings) -> AttackerRoundConfig:
    return AttackerRoundConfig(sampling=sampling, group_size=4, iterations=2, learning_rate=1e-3, kl=0.1, micro_batch=2)


def windowed(steps: int = 5, sampler: str = "sde", **window: object) -> SamplingSettings:
    return SamplingSettings.model_validate({"steps": steps, "sampler": sampler, "window": window})


def sample(attacker: Attacker, settings: SamplingSettings) -> Rollout:
    attacker.hold_reference()
    condition = attacker.encode(SCENES, TOLD)
    return rollout(attacker, condition, 4, settings, torch.Generator().manual_seed(0), with_reference=True)


def gradients(attacker: Attacker, edits: Rollout, settings: SamplingSettings) -> tuple[list[float], Tensor]:
    """The loss of every trained step, and the sum of their gradients."""
    for parameter in attacker.trainable():
        parameter.grad = None
    losses = []
    for transition in edits.transitions_T:
        loss, _ = step_loss(attacker, edits.condition, transition, ADVANTAGES, torch.arange(8), config(settings))
        loss.backward()
        losses.append(float(loss.detach()))
    return losses, torch.cat([p.grad.flatten() for p in attacker.trainable() if p.grad is not None])


@pytest.mark.parametrize("sampler", ["sde", "cps"])
def test_a_window_of_full_length_is_the_all_steps_version(attacker: Attacker, sampler: str):
    everything = SamplingSettings.model_validate({"steps": 5, "sde_steps": 4, "sampler": sampler})
    full = windowed(sampler=sampler, start=0, size=4)
    first, second = sample(attacker, everything), sample(attacker, full)
    assert [t.alike for t in first.transitions_T] == [1] * 4
    assert [t.alike for t in second.transitions_T] == [4, 1, 1, 1]
    for one, other in zip(first.transitions_T, second.transitions_T, strict=True):
        assert torch.allclose(one.next_latents, other.next_latents, atol=1e-6)
        assert torch.allclose(one.old_logprob, other.old_logprob, atol=1e-6)
        assert one.reference_mean is not None
        assert other.reference_mean is not None
        assert torch.allclose(one.reference_mean, other.reference_mean, atol=1e-6)
    assert torch.allclose(first.latents, second.latents, atol=1e-6)
    losses, gradient = gradients(attacker, first, everything)
    window_losses, window_gradient = gradients(attacker, second, full)
    assert window_losses == pytest.approx(losses, abs=1e-5)
    assert float(gradient.norm()) > 0
    assert float((window_gradient - gradient).norm() / gradient.norm()) < 1e-4


def test_a_branching_group_gives_the_gradient_of_its_edits_one_by_one(attacker: Attacker):
    settings = windowed(start=1, size=2)
    edits = sample(attacker, settings)
    losses, gradient = gradients(attacker, edits, settings)
    apart = Rollout(
        edits.condition,
        [type(t)(**{**t.__dict__, "alike": 1}) for t in edits.transitions_T],
        edits.latents,
    )
    apart_losses, apart_gradient = gradients(attacker, apart, settings)
    assert losses == pytest.approx(apart_losses, abs=1e-5)
    assert float((gradient - apart_gradient).norm() / apart_gradient.norm()) < 1e-4


class Counted:
    """Counts the rows that go through an editor's velocity."""

    def __init__(self, attacker: Attacker, monkeypatch: pytest.MonkeyPatch) -> None:
        self.rows: list[int] = []
        inner = attacker.velocity

        def velocity(latents: Tensor, time: Tensor, condition: object) -> Tensor:
            self.rows.append(len(latents))
            return inner(latents, time, condition)  # pyright: ignore[reportArgumentType]

        monkeypatch.setattr(attacker, "velocity", velocity)


def test_a_group_shares_its_prefix_and_branches_in_its_window(attacker: Attacker, monkeypatch: pytest.MonkeyPatch):
    counted = Counted(attacker, monkeypatch)
    condition = attacker.encode(SCENES, TOLD)
    settings = windowed(steps=6, start=2, size=2)
    edits = rollout(attacker, condition, 4, settings, torch.Generator().manual_seed(0), with_reference=False)
    assert counted.rows == [2, 2, 2, 8, 8, 8]  # two steps of prefix, the branching, a trained step, two of the ODE
    first, second = edits.transitions_T
    assert torch.equal(first.latents[0], first.latents[3])
    assert not torch.equal(first.latents[0], first.latents[4])
    assert not torch.equal(second.latents[0], second.latents[1])
    counted.rows.clear()
    optimizer = torch.optim.SGD(attacker.trainable(), lr=0.0)
    optimise(attacker, edits, REWARDS_PG, config(settings).model_copy(update={"iterations": 1, "kl": 0.0}), optimizer)
    assert counted.rows == [2, 2, 2, 2, 2]  # micro-batches of 2 rows: the branching's groups, then eight edits


def test_flat_groups_are_dropped_from_a_shared_branching_too(attacker: Attacker, monkeypatch: pytest.MonkeyPatch):
    settings = windowed(start=0, size=1)
    edits = sample(attacker, settings)
    counted = Counted(attacker, monkeypatch)
    flat = torch.stack([torch.full((4,), 0.5), REWARDS_PG[1]])
    one_pass = config(settings).model_copy(update={"iterations": 1})
    metrics = optimise(attacker, edits, flat, one_pass, torch.optim.SGD(attacker.trainable(), lr=1.0))
    assert metrics["flat_groups"] == 0.5
    assert counted.rows == [1]


def test_fewer_steps_finish_the_edit_after_the_window(attacker: Attacker, monkeypatch: pytest.MonkeyPatch):
    counted = Counted(attacker, monkeypatch)
    settings = windowed(steps=8, start=0, size=2, finish=2)
    rollout(
        attacker, attacker.encode(SCENES, TOLD), 4, settings, torch.Generator().manual_seed(0), with_reference=False
    )
    assert counted.rows == [2, 8, 8, 8]
    schedule = [1.0, 0.9, 0.8, 0.7, 0.5, 0.3, 0.2, 0.1, 0.0]
    assert sampling_times(schedule, settings, range(2)) == [1.0, 0.9, 0.8, 0.3, 0.0]
    assert sampling_times(schedule, windowed(steps=8, size=2, finish=20), range(2)) == schedule
    assert sampling_times(schedule, SamplingSettings(steps=8), range(3)) == schedule


def test_where_the_window_lies():
    assert stochastic_steps(SamplingSettings(steps=6, sde_steps=3), 9) == range(3)
    assert [stochastic_steps(windowed(start=1, size=2), update).start for update in range(5)] == [1] * 5
    sliding = windowed(steps=6, start=1, size=2, move="sliding", every=2)
    assert [stochastic_steps(sliding, update).start for update in range(8)] == [1, 1, 2, 2, 3, 3, 1, 1]
    sampled = windowed(steps=6, size=2, move="sampled")
    drawn = [stochastic_steps(sampled, update, seed=3) for update in range(200)]
    assert {places.start for places in drawn} == {0, 1, 2, 3}
    assert all(len(places) == 2 and places.stop < 6 for places in drawn)
    assert drawn == [stochastic_steps(sampled, update, seed=3) for update in range(200)]
    assert drawn != [stochastic_steps(sampled, update, seed=4) for update in range(200)]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 4, "window": {"start": 2, "size": 2}}, "window.size 2 must be less than steps 4"),
        ({"steps": 4, "shared_noise": False, "window": {"size": 2}}, "shared_noise = true"),
        ({"sampler": "cps", "noise_level": 1.2}, "takes 0..1"),
        ({"window": {"size": 0}}, "greater than or equal to 1"),
    ],
)
def test_settings_that_cannot_be_are_refused_with_the_fix(settings: dict[str, object], message: str):
    with pytest.raises(ValidationError, match=message):
        SamplingSettings.model_validate(settings)
