"""The mathematics of stochastic flow sampling: a flow's ODE turned into a chain of Gaussian transitions.

A rectified flow x_t = (1 - t) x_0 + t e, e ~ N(0, I), is sampled from t = 1 down to 0 along dx = v(x, t) dt. Adding
noise, and a drift that makes up for it, leaves every marginal as it is but gives each step a Gaussian
transition, whose log-probability a policy gradient can use. Two ways to do so:

- "sde" (Flow-GRPO, arXiv 2505.05470): Euler-Maruyama steps of the SDE with the flow's marginals. Right for small
  steps; with few of them there is more noise in x_t' than t' says, and the flow was never trained on that.
- "cps" (coefficients-preserving sampling, arXiv 2509.05952): x_t' is recomposed from the clean latents and the
  noise that the flow sees, a part of which is drawn afresh; the noise in x_t' is t' however long the step is.

Shapes: latents (B, C, h, w); times are scalars. Means and log-probabilities are computed in float32.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from aot_core.contracts.attacker_round import SamplingSettings


class GaussianStep(NamedTuple):
    """A transition N(mean, std^2), the point it went to, and how likely that was."""

    next_latents: Tensor
    """(B, C, h, w): x at the next time, float32."""
    logprob: Tensor
    """(B,): of `next_latents`, *averaged* over the C * h * w dimensions."""
    mean: Tensor
    """(B, C, h, w)."""
    std: float
    """Standard deviation of the transition: the log-probability's, and the one that the KL is to be divided by."""


def noise_scale(time: float, level: float, cap: float) -> float:
    """eta_t = a sqrt(t / (1 - t)), at most `cap`: the SDE's diffusion coefficient (Flow-GRPO, section 4.2).

    It has a pole at t = 1, where the step's noise would drown what the flow knows: hence the cap. See
    `SamplingSettings.first_step` for what the reference code does there.
    """
    if not 0 < time <= 1:
        raise ValueError(f"time {time} is outside (0, 1]")
    return cap if time == 1 else min(cap, level * math.sqrt(time / (1 - time)))


def ode_step(latents: Tensor, velocity: Tensor, time: float, next_time: float) -> Tensor:
    """x + v (t' - t): Euler's step of the flow."""
    return latents + velocity * (next_time - time)


def sde_transition(
    x: Tensor, v: Tensor, time: float, next_time: float, *, level: float, cap: float
) -> tuple[Tensor, float]:
    """Mean and deviation of one Euler-Maruyama step of the reverse SDE.

    Flow-GRPO, equations 8 and 9: with eta = eta_t (paper: sigma_t, its noise level `a` is `level`) and dt = t - t' > 0,

        mean = x - [v + eta^2 / (2 t) (x + (1 - t) v)] dt,    std = eta sqrt(dt).

    (x + (1 - t) v is the noise e that the flow sees in x, and -e / t its score.)
    """
    dt = time - next_time
    eta = noise_scale(time, level, cap)
    mean = x - (v + eta**2 / (2 * time) * (x + (1 - time) * v)) * dt
    return mean, eta * math.sqrt(dt)


def cps_transition(x: Tensor, v: Tensor, time: float, next_time: float, *, level: float) -> tuple[Tensor, float]:
    """Mean and deviation of one coefficients-preserving step (Flow-CPS, arXiv 2509.05952, section 4).

    With the flow's view of x as clean latents x_0 = x - t v and noise e = x + (1 - t) v, and `level` eta in 0..1,

        mean = (1 - t') x_0 + t' cos(eta pi / 2) e,    std = t' sin(eta pi / 2):

    (t' cos)^2 + (t' sin)^2 = t'^2, so the noise in x_t' is what the schedule says. eta = 0 is the ODE's step, eta = 1
    draws all noise afresh. Exact where x_0 is; where the flow sees a mean of several x_0, each step loses a little of
    their variance, as DDIM with noise does.
    """
    clean, noise = x - time * v, x + (1 - time) * v
    angle = level * math.pi / 2
    return (1 - next_time) * clean + next_time * math.cos(angle) * noise, next_time * math.sin(angle)


def stochastic_step(
    latents: Tensor,
    velocity: Tensor,
    time: float,
    next_time: float,
    settings: SamplingSettings,
    *,
    generator: torch.Generator | None = None,
    next_latents: Tensor | None = None,
) -> GaussianStep:
    """One step of the settings' sampler, from `time` to an earlier `next_time`.

    With `next_latents` given, the step is not sampled: its log-probability is evaluated, for the updated policy's
    ratio.

    The log-probability is averaged over dimensions, not summed, as in Flow-GRPO's code: with many dimensions a ratio of
    sums leaves any clip range at the smallest update. It is the log of the geometric mean of the densities; the clip's
    bounds must be chosen accordingly (around 1e-3 and below for large latents).

    Raises ValueError where `next_time` does not lie in [0, time), or the step has no noise (CPS at its end).
    """
    if not 0 <= next_time < time:
        raise ValueError(f"next_time {next_time} must lie in [0, time) with time = {time}")
    x, v = latents.float(), velocity.float()
    if settings.sampler == "cps":
        mean, std = cps_transition(x, v, time, next_time, level=settings.noise_level)
    else:
        cap = settings.noise_cap
        if time == 1 and settings.first_step == "level":
            # The reference code puts the schedule's second time, t', into the denominator: eta = a sqrt(1 / (1 - t')).
            cap = min(cap, settings.noise_level / math.sqrt(time - next_time))
        mean, std = sde_transition(x, v, time, next_time, level=settings.noise_level, cap=cap)
    if std == 0:
        raise ValueError(f"the {settings.sampler} step from {time} to {next_time} has no noise: use ode_step")
    if next_latents is None:
        noise = torch.randn(x.shape, generator=generator, device="cpu").to(x)
        next_latents = (mean + std * noise).detach()
    return GaussianStep(next_latents, gaussian_logprob(next_latents.float(), mean, std), mean, std)


def gaussian_logprob(value: Tensor, mean: Tensor, std: float) -> Tensor:
    """log N(value; mean, std^2), averaged over all dimensions but the first: (B, ...) to (B,)."""
    logprob = -((value - mean) ** 2) / (2 * std**2) - math.log(std) - 0.5 * math.log(2 * math.pi)
    return logprob.flatten(1).mean(1)
