"""Flow-GRPO's mathematics (arXiv 2505.05470): a flow's ODE turned into an SDE with the same marginals.

A rectified flow x_t = (1 - t) x_0 + t e, e ~ N(0, I), is sampled from t = 1 down to 0 along dx = v(x, t) dt. Adding
noise, and a drift that makes up for it, leaves every marginal as it is but gives each step a Gaussian
transition, whose log-probability a policy gradient can use. Paper's symbols: eta_t is sigma_t there, `a` its
noise level.

Shapes: latents (B, C, h, w); times (B,) or scalar. Means and log-probabilities are computed in float32.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor


class SdeStep(NamedTuple):
    next_latents: Tensor
    """(B, C, h, w): x at the next time."""
    logprob: Tensor
    """(B,): of `next_latents`, *averaged* over the C * h * w dimensions."""
    mean: Tensor
    """(B, C, h, w)."""
    std: float
    """Standard deviation of the transition, the same in log-probability and KL."""


def noise_scale(time: float, level: float, cap: float) -> float:
    """eta_t = a sqrt(t / (1 - t)), at most `cap`: the SDE's diffusion coefficient (Flow-GRPO, section 4.2).

    It has a pole at t = 1, where the step's noise would drown what the flow knows: hence the cap.
    """
    if not 0 < time <= 1:
        raise ValueError(f"time {time} is outside (0, 1]")
    return cap if time == 1 else min(cap, level * math.sqrt(time / (1 - time)))


def ode_step(latents: Tensor, velocity: Tensor, time: float, next_time: float) -> Tensor:
    """x + v (t' - t): Euler's step of the flow."""
    return latents + velocity * (next_time - time)


def sde_step(
    latents: Tensor,
    velocity: Tensor,
    time: float,
    next_time: float,
    *,
    level: float,
    cap: float,
    generator: torch.Generator | None = None,
    next_latents: Tensor | None = None,
) -> SdeStep:
    """One Euler-Maruyama step of the reverse SDE, from `time` to an earlier `next_time`.

    Flow-GRPO, equations 8 and 9: with eta = eta_t and dt = t - t' > 0,

        mean = x - [v + eta^2 / (2 t) (x + (1 - t) v)] dt,    std = eta sqrt(dt).

    (x + (1 - t) v is the noise e that the flow sees in x, and -e / t its score.) With `next_latents` given
    the step is not sampled: its log-probability is evaluated, which is how the updated policy's ratio is had.

    The log-probability is averaged over dimensions, not summed, as in Flow-GRPO's code: a ratio of summed
    ones leaves any clip at the smallest update when dimensions are many. It is the log of the geometric mean
    of the densities; the clip's bounds must be chosen accordingly (around 1e-3 and below for large latents).
    """
    if not 0 <= next_time < time:
        raise ValueError(f"next_time {next_time} must lie in [0, time), time being {time}")
    x, v = latents.float(), velocity.float()
    dt = time - next_time
    eta = noise_scale(time, level, cap)
    mean = x - (v + eta**2 / (2 * time) * (x + (1 - time) * v)) * dt
    std = eta * math.sqrt(dt)
    if next_latents is None:
        noise = torch.randn(x.shape, generator=generator, device="cpu").to(x)
        next_latents = (mean + std * noise).detach()
    return SdeStep(next_latents, gaussian_logprob(next_latents.float(), mean, std), mean, std)


def gaussian_logprob(value: Tensor, mean: Tensor, std: float) -> Tensor:
    """log N(value; mean, std^2), averaged over all dimensions but the first: (B, ...) to (B,)."""
    logprob = -((value - mean) ** 2) / (2 * std**2) - math.log(std) - 0.5 * math.log(2 * math.pi)
    return logprob.flatten(1).mean(1)
