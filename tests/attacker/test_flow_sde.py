"""Flow-GRPO's mathematics against hand-computed values and a flow whose marginals are known."""

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from aot_core.attacker.flow_sde import noise_scale, ode_step, sde_step

MEAN, DEVIATION = 1.5, 0.5
"""x_0 ~ N(MEAN, DEVIATION^2): every marginal of the flow is then a known Gaussian, and so is its velocity."""


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
            x = sde_step(x, v, time, next_time, level=level, cap=10.0, generator=generator).next_latents
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
    step = sde_step(x, v, 0.5, 0.25, level=0.8, cap=10.0, next_latents=torch.full((1, 1, 1, 1), 1.0))
    eta = 0.8  # a sqrt(0.5 / 0.5)
    drift = 0.5 + eta**2 / (2 * 0.5) * (2.0 + 0.5 * 0.5)
    assert step.mean.item() == pytest.approx(2.0 - drift * 0.25)
    assert step.std == pytest.approx(eta * 0.5)


def test_logprob_is_torchs_normal_averaged_over_dimensions():
    generator = torch.Generator().manual_seed(1)
    x, v = (torch.randn(3, 2, 4, 4, generator=generator) for _ in range(2))
    step = sde_step(x, v, 0.9, 0.7, level=0.7, cap=2.0, generator=generator)
    expected = torch.distributions.Normal(step.mean, step.std).log_prob(step.next_latents)
    assert torch.allclose(step.logprob, expected.mean((1, 2, 3)), atol=1e-6)


def test_evaluating_a_sampled_step_again_gives_ratio_one():
    generator = torch.Generator().manual_seed(2)
    x, v = (torch.randn(3, 2, 4, 4, generator=generator) for _ in range(2))
    sampled = sde_step(x, v, 1.0, 0.8, level=0.8, cap=2.0, generator=generator)
    again = sde_step(x, v, 1.0, 0.8, level=0.8, cap=2.0, next_latents=sampled.next_latents)
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
        sde_step(x, x, 0.5, 0.6, level=0.8, cap=2.0)
