"""Flow-GRPO's mathematics against hand-computed values and a flow whose marginals are known."""

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from aot_core.attacker.flow_sde import cps_transition, noise_scale, ode_step, stochastic_step
from aot_core.contracts.attacker_round import SamplingSettings
from aot_core.rl.surrogate import gaussian_kl

MEAN, DEVIATION = 1.5, 0.5
"""x_0 ~ N(MEAN, DEVIATION^2): every marginal of the flow is then a known Gaussian, and so is its velocity."""


def sde(level: float = 0.8, cap: float = 2.0) -> SamplingSettings:
    return SamplingSettings(noise_level=level, noise_cap=cap)


def cps(level: float = 0.6) -> SamplingSettings:
    return SamplingSettings(sampler="cps", noise_level=level)


def marginal(time: float) -> tuple[float, float]:
    """Mean and deviation of x_t = (1 - t) x_0 + t e."""
    return (1 - time) * MEAN, math.sqrt((1 - time) ** 2 * DEVIATION**2 + time**2)


def velocity(x: Tensor, time: float) -> Tensor:
    """E[e - x_0 | x_t = x], exactly."""
    mean, deviation = marginal(time)
    centred = (x - mean) / deviation**2
    noise = time * centred
    clean = MEAN + (1 - time) * DEVIATION**2 * centred
    return noise - clean


def run(steps: int, level: float | None, count: int = 20_000) -> dict[float, Tensor]:
    """Samples at each time, from t = 0.98 down to 0.02, along the ODE or the SDE."""
    generator = torch.Generator().manual_seed(0)
    times = torch.linspace(0.98, 0.02, steps + 1).tolist()
    mean, deviation = marginal(times[0])
    x = mean + deviation * torch.randn(count, 1, 1, 1, generator=generator)
    seen = {}
    for time, next_time in pairwise(times):
        v = velocity(x, time)
        if level is None:
            x = ode_step(x, v, time, next_time)
        else:
            x = stochastic_step(x, v, time, next_time, sde(level, 10.0), generator=generator).next_latents
        seen[next_time] = x
    return seen


@pytest.mark.parametrize("level", [None, 0.3, 0.8])
def test_the_sdes_marginals_are_the_odes(level: float | None):
    samples = run(steps=400, level=level)
    for time in list(samples)[99::100]:
        mean, deviation = marginal(time)
        # 20,000 samples: three standard errors of the mean are 0.02 deviations; the rest is the step size's
        # error.
        assert samples[time].mean().item() == pytest.approx(mean, abs=0.03)
        assert samples[time].std().item() == pytest.approx(deviation, rel=0.03)


def test_one_step_by_hand():
    x, v = torch.full((1, 1, 1, 1), 2.0), torch.full((1, 1, 1, 1), 0.5)
    step = stochastic_step(x, v, 0.5, 0.25, sde(0.8, 10.0), next_latents=torch.full((1, 1, 1, 1), 1.0))
    eta = 0.8  # a sqrt(0.5 / 0.5)
    drift = 0.5 + eta**2 / (2 * 0.5) * (2.0 + 0.5 * 0.5)
    assert step.mean.item() == pytest.approx(2.0 - drift * 0.25)
    assert step.std == pytest.approx(eta * 0.5)


@pytest.mark.parametrize("steps", [4, 6, 10])
def test_the_first_step_can_be_as_noisy_as_the_reference_codes(steps: int):
    """yifan123/flow_grpo, `sde_step_with_logprob`: std_dev_t = sqrt(s / (1 - where(s == 1, s[1], s))) * noise_level,
    times sqrt(dt)."""
    times = torch.linspace(1, 0, steps + 1)
    theirs = torch.sqrt(times / (1 - torch.where(times == 1, times[1], times))) * 0.8
    deviation = float(theirs[0]) * math.sqrt(1 / steps)
    x = torch.zeros(1, 1, 1, 1)
    step = stochastic_step(
        x, x, 1.0, float(times[1]), SamplingSettings(noise_level=0.8, noise_cap=10.0, first_step="level")
    )
    assert step.std == pytest.approx(deviation) == pytest.approx(0.8)
    capped = stochastic_step(x, x, 1.0, float(times[1]), SamplingSettings(noise_level=0.8))
    assert capped.std == pytest.approx(3.0 / math.sqrt(steps)), "by default the level has no say at t = 1"


def test_kl_and_clip_translate_from_flow_grpo():
    """`docs/migrating.md`: its KL leaves out dt, its CPS log-probability 1 / (2 std^2)."""
    x, v, moved = (torch.randn(3, 2, 4, 4, generator=torch.Generator().manual_seed(i)) for i in range(3))
    time, next_time, level = 0.8, 0.55, 0.7
    mine = stochastic_step(x, v, time, next_time, sde(level, 10.0), generator=torch.Generator().manual_seed(9))
    other = stochastic_step(x, v + 0.1 * moved, time, next_time, sde(level, 10.0), next_latents=mine.next_latents)
    eta = level * math.sqrt(time / (1 - time))
    theirs = ((mine.mean - other.mean) ** 2).mean() / (2 * eta**2)
    assert gaussian_kl(mine.mean, other.mean, mine.std).mean() * (time - next_time) == pytest.approx(float(theirs))

    mine = stochastic_step(x, v, time, next_time, cps(level), generator=torch.Generator().manual_seed(9))
    other = stochastic_step(x, v + 0.1 * moved, time, next_time, cps(level), next_latents=mine.next_latents)
    theirs = [-((mine.next_latents - step.mean) ** 2).flatten(1).mean(1) for step in (other, mine)]
    ours = other.logprob - mine.logprob
    torch.testing.assert_close(ours * 2 * mine.std**2, theirs[0] - theirs[1], rtol=1e-4, atol=1e-6)
    assert mine.std == pytest.approx(next_time * math.sin(level * math.pi / 2))


@pytest.mark.parametrize("settings", [sde(), cps()])
def test_logprob_is_torchs_normal_averaged_over_dimensions(settings: SamplingSettings):
    generator = torch.Generator().manual_seed(1)
    x, v = (torch.randn(3, 2, 4, 4, generator=generator) for _ in range(2))
    step = stochastic_step(x, v, 0.9, 0.7, settings, generator=generator)
    expected = torch.distributions.Normal(step.mean, step.std).log_prob(step.next_latents)
    assert torch.allclose(step.logprob, expected.mean((1, 2, 3)), atol=1e-6)


@pytest.mark.parametrize("settings", [sde(), cps()])
def test_evaluating_a_sampled_step_again_gives_ratio_one(settings: SamplingSettings):
    generator = torch.Generator().manual_seed(2)
    x, v = (torch.randn(3, 2, 4, 4, generator=generator) for _ in range(2))
    sampled = stochastic_step(x, v, 1.0, 0.8, settings, generator=generator)
    again = stochastic_step(x, v, 1.0, 0.8, settings, next_latents=sampled.next_latents)
    assert torch.equal((again.logprob - sampled.logprob).exp(), torch.ones(3))


def test_noise_scale_has_its_cap_at_the_pole_and_the_formula_elsewhere():
    assert noise_scale(1.0, 0.8, 3.0) == 3.0
    assert noise_scale(0.99, 0.8, 3.0) == 3.0
    assert noise_scale(0.2, 0.8, 3.0) == pytest.approx(0.4)
    with pytest.raises(ValueError, match="time 0"):
        noise_scale(0.0, 0.8, 3.0)


def test_time_must_fall():
    x = torch.zeros(1, 1, 1, 1)
    with pytest.raises(ValueError, match="next_time"):
        stochastic_step(x, x, 0.5, 0.6, sde())


def test_one_coefficients_preserving_step_by_hand():
    x, v = torch.full((1, 1, 1, 1), 2.0), torch.full((1, 1, 1, 1), 0.5)
    step = stochastic_step(x, v, 0.5, 0.25, cps(1 / 3), next_latents=torch.full((1, 1, 1, 1), 1.0))
    clean, noise = 2.0 - 0.5 * 0.5, 2.0 + 0.5 * 0.5
    assert step.mean.item() == pytest.approx(0.75 * clean + 0.25 * math.cos(math.pi / 6) * noise)
    assert step.std == pytest.approx(0.25 * 0.5)  # t' sin(pi / 6)


def test_without_noise_a_coefficients_preserving_step_is_the_odes():
    generator = torch.Generator().manual_seed(3)
    x, v = (torch.randn(3, 2, 4, 4, generator=generator) for _ in range(2))
    for time, next_time in ((1.0, 0.8), (0.5, 0.1), (0.2, 0.0)):
        mean, std = cps_transition(x, v, time, next_time, level=0.0)
        assert std == 0
        assert torch.allclose(mean, ode_step(x, v, time, next_time), atol=1e-6)


@pytest.mark.parametrize("level", [0.2, 0.7, 1.0])
def test_coefficients_are_preserved_by_long_steps_where_the_sdes_are_not(level: float):
    """Where the flow knows the clean latents, x_t' = (1 - t') x_0 + t' e holds after four steps as after none."""
    clean, count, times = 1.5, 20_000, [1.0, 0.9, 0.7, 0.4, 0.1]
    found = {}
    for settings in (cps(level), sde(level, cap=3.0)):
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(count, 1, 1, 1, generator=generator)
        for time, next_time in pairwise(times):
            x = stochastic_step(x, (x - clean) / time, time, next_time, settings, generator=generator).next_latents
        found[settings.sampler] = x
    # The standard error of a deviation from 20,000 samples is 0.5 %.
    assert found["cps"].mean().item() == pytest.approx(0.9 * clean, abs=0.003)
    assert found["cps"].std().item() == pytest.approx(0.1, rel=0.02)
    assert found["sde"].std().item() > 0.1 * (1 + level / 4)


def test_a_step_without_noise_has_no_logprob():
    x = torch.zeros(1, 1, 1, 1)
    with pytest.raises(ValueError, match="ode_step"):
        stochastic_step(x, x, 0.5, 0.0, cps())


@pytest.mark.parametrize("settings", [sde(), cps()])
def test_the_gradient_of_a_logprob_by_hand_and_by_finite_differences(settings: SamplingSettings):
    generator = torch.Generator().manual_seed(4)
    x, v, drawn = (torch.randn(2, 1, 2, 2, generator=generator) for _ in range(3))
    v.requires_grad_(True)
    step = stochastic_step(x, v, 0.8, 0.6, settings, next_latents=drawn)
    step.logprob.sum().backward()
    slope = -0.2 * (1 + 0.8**2 * 4 / (2 * 0.8) * 0.2)  # d mean / d v of the SDE: eta^2 = a^2 t / (1 - t) = 0.64 * 4
    if settings.sampler == "cps":
        slope = -0.4 * 0.8 + 0.6 * math.cos(0.3 * math.pi) * 0.2
    by_hand = (drawn - step.mean.detach()) / step.std**2 * slope / 4  # a mean over four dimensions
    assert v.grad is not None
    assert torch.allclose(v.grad, by_hand, rtol=1e-4, atol=1e-6)
    nudge = torch.zeros_like(v)
    nudge[1, 0, 1, 0] = 1e-2
    with torch.no_grad():
        ends = [
            stochastic_step(x, v + sign * nudge, 0.8, 0.6, settings, next_latents=drawn).logprob[1] for sign in (1, -1)
        ]
    assert float(v.grad[1, 0, 1, 0]) == pytest.approx(float(ends[0] - ends[1]) / 2e-2, rel=0.01)
