import pytest
import torch

from aot_core.attacker.editing import Attacker
from aot_core.attacker.flow_grpo import optimise, rollout, step_loss
from aot_core.attacker.flow_sde import stochastic_step
from aot_core.contracts.attacker_round import AttackerRoundConfig, SamplingSettings
from aot_core.contracts.errors import NonFiniteLossError
from aot_core.worlds.shapes import world

SCENES = [world.render((), world.Backdrop(level=level)) for level in (195, 215)]
TOLD = ["Add an object at row 2, column 3.", "Add an object at row 1, column 1."]
CONFIG = AttackerRoundConfig(
    sampling=SamplingSettings(steps=4, sde_steps=2), group_size=4, iterations=2, learning_rate=1e-3, kl=0.1
)


def sample(attacker: Attacker, config: AttackerRoundConfig = CONFIG):
    attacker.hold_reference()
    condition = attacker.encode(SCENES, TOLD)
    generator = torch.Generator().manual_seed(0)
    return rollout(attacker, condition, config.group_size, config.sampling, generator, with_reference=True)


def logprobs(attacker: Attacker, edits, transition) -> torch.Tensor:
    times = torch.full((8,), transition.time)
    velocity = attacker.velocity(transition.latents, times, edits.condition)
    return stochastic_step(
        transition.latents,
        velocity,
        transition.time,
        transition.next_time,
        CONFIG.sampling,
        next_latents=transition.next_latents,
    ).logprob


def test_rollout_has_a_transition_a_trained_step_and_ends_without_noise(attacker: Attacker):
    edits = sample(attacker)
    assert [transition.time for transition in edits.transitions_T] == pytest.approx([1.0, 0.9])  # shift 3, 4 steps
    assert edits.latents.shape == (8, 8, 8, 8)
    assert torch.equal(edits.transitions_T[0].next_latents, edits.transitions_T[1].latents)


def test_shared_noise_starts_a_group_from_one_point(attacker: Attacker):
    shared = CONFIG.model_copy(update={"sampling": CONFIG.sampling.model_copy(update={"shared_noise": True})})
    first = sample(attacker, shared).transitions_T[0]
    assert torch.equal(first.latents[0], first.latents[3])
    assert not torch.equal(first.latents[0], first.latents[4])
    assert not torch.equal(first.next_latents[0], first.next_latents[1])


def test_before_the_first_update_the_ratio_is_one_and_the_kl_zero(attacker: Attacker):
    edits = sample(attacker)
    for transition in edits.transitions_T:
        with torch.no_grad():
            again = logprobs(attacker, edits, transition)
        assert torch.allclose((again - transition.old_logprob).exp(), torch.ones(8), atol=1e-5)
        _, parts = step_loss(attacker, edits.condition, transition, torch.ones(8), torch.arange(8), CONFIG)
        assert parts["clip_fraction"] == 0.0
        assert parts["kl"] == pytest.approx(0.0, abs=1e-8)


def test_an_update_raises_the_logprob_of_what_was_rewarded(attacker: Attacker):
    edits = sample(attacker)
    rewards_PG = torch.tensor([[1.0, 0.0, 0.0, 1.0], [0.0, 1.0, 0.0, 0.0]])
    rewarded = rewards_PG.flatten() > 0
    optimizer = torch.optim.AdamW(attacker.trainable(), lr=1e-3, weight_decay=0.0)
    metrics = optimise(attacker, edits, rewards_PG, CONFIG, optimizer)
    for transition in edits.transitions_T:
        with torch.no_grad():
            change = logprobs(attacker, edits, transition) - transition.old_logprob
        assert change[rewarded].mean() > 0
        assert change[rewarded].mean() > change[~rewarded].mean()
    assert metrics["kl"] > 0
    assert metrics["flat_groups"] == 0.0


def test_the_guarded_ratio_is_the_papers_and_balanced(attacker: Attacker):
    """arXiv 2510.22319, equation 8: log r~ = std (log r + KL of the transitions), its loss over dt."""
    config = CONFIG.model_copy(update={"group_size": 64, "kl": 0.0, "clip_low": 0.999, "clip_high": 1000.0})
    guarded = config.model_copy(update={"ratio": "guard"})
    edits = sample(attacker, config)
    everyone, advantages = torch.arange(128), torch.linspace(0.5, 1.5, 128)
    with torch.no_grad():
        for number, parameter in enumerate(attacker.trainable()):
            noise = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number))
            parameter.add_(noise)
        for transition in edits.transitions_T:
            times = torch.full((128,), transition.time)
            moved = stochastic_step(
                transition.latents,
                attacker.velocity(transition.latents, times, edits.condition),
                transition.time,
                transition.next_time,
                config.sampling,
                next_latents=transition.next_latents,
            )
            log_ratio = moved.logprob - transition.old_logprob
            bias = ((moved.mean - transition.old_mean) ** 2).flatten(1).mean(1) / (2 * moved.std**2)
            error = float((log_ratio + bias).std()) / 128**0.5
            assert abs(float((log_ratio + bias).mean())) < 4 * error, "mean 0"
            assert float(log_ratio.mean()) < -4 * error, "which the plain one has not"
            expected = -(((log_ratio + bias) * moved.std).exp() * advantages).mean()
            loss, _ = step_loss(attacker, edits.condition, transition, advantages, everyone, guarded)
            assert float(loss) == pytest.approx(float(expected / (transition.time - transition.next_time)), rel=1e-5)


def test_micro_batches_accumulate_to_the_same_gradient(attacker: Attacker):
    edits = sample(attacker)
    rewards_PG = torch.tensor([[1.0, 0.0, 0.0, 1.0], [0.0, 1.0, 0.0, 0.0]])
    start = [parameter.detach().clone() for parameter in attacker.trainable()]
    results = []
    for micro_batch in (8, 3):
        with torch.no_grad():
            for parameter, value in zip(attacker.trainable(), start, strict=True):
                parameter.copy_(value)
        config = CONFIG.model_copy(update={"micro_batch": micro_batch, "iterations": 1})
        # Plain gradient descent: Adam would blow up rounding errors of gradients that are nearly zero.
        optimise(attacker, edits, rewards_PG, config, torch.optim.SGD(attacker.trainable(), lr=1.0))
        results.append(torch.cat([parameter.detach().flatten() for parameter in attacker.trainable()]))
    assert torch.allclose(results[0], results[1], atol=1e-5)


def test_flat_groups_teach_nothing(attacker: Attacker):
    edits = sample(attacker)
    before = [parameter.detach().clone() for parameter in attacker.trainable()]
    optimizer = torch.optim.AdamW(attacker.trainable(), lr=1e-3)
    metrics = optimise(attacker, edits, torch.full((2, 4), 0.5), CONFIG, optimizer)
    assert metrics["flat_groups"] == 1.0
    assert all(torch.equal(a, b) for a, b in zip(before, attacker.trainable(), strict=True))


def test_a_nan_is_an_error_before_any_weight_takes_harm(attacker: Attacker):
    edits = sample(attacker)
    before = [parameter.detach().clone() for parameter in attacker.trainable()]
    rewards_PG = torch.tensor([[1.0, float("nan"), 0.0, 1.0], [0.0, 1.0, 0.0, 0.0]])
    with pytest.raises(NonFiniteLossError, match="learning_rate"):
        optimise(attacker, edits, rewards_PG, CONFIG, torch.optim.AdamW(attacker.trainable(), lr=1e-3))
    assert all(torch.equal(a, b) for a, b in zip(before, attacker.trainable(), strict=True))


def test_gradients_that_are_not_finite_are_an_error_before_any_weight_takes_harm(attacker: Attacker):
    """The loss is finite: clipping would have spread one broken gradient over all weights."""
    edits = sample(attacker)
    before = [parameter.detach().clone() for parameter in attacker.trainable()]
    attacker.trainable()[0].register_hook(lambda gradient: gradient * float("inf"))
    rewards_PG = torch.tensor([[1.0, 0.0, 0.0, 1.0], [0.0, 1.0, 0.0, 0.0]])
    with pytest.raises(NonFiniteLossError, match=r"attacker_round: the norm of the gradients is (nan|inf); lower"):
        optimise(attacker, edits, rewards_PG, CONFIG, torch.optim.AdamW(attacker.trainable(), lr=1e-3))
    assert all(torch.equal(a, b) for a, b in zip(before, attacker.trainable(), strict=True))
