"""The clipped surrogate of PPO, with two clips, and the divergences that hold a policy near its reference."""

import torch
from torch import Tensor


def clipped_surrogate(
    logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    clip_low: float = 0.2,
    clip_high: float = 0.2,
    dual: float | None = None,
) -> tuple[Tensor, dict[str, float]]:
    """-mean(min(r A, clip(r, 1 - low, 1 + high) A)), r = exp(logprob - old logprob).

    PPO (arXiv 1707.06347, equation 7) with DAPO's asymmetric clip (arXiv 2503.14476, equation 10). All
    arguments broadcast to one shape. With `dual` c > 1 + high it is bounded by c |A| where A < 0 (dual clip, arXiv
    1912.09729, equation 5). Returns the loss to descend and `ratio`, `clip_fraction` (the share of
    elements whose gradient the clip stops) and `approx_kl` (the k3 estimate of KL(old || new) from the old policy's
    samples).
    """
    log_ratio = logprobs - old_logprobs
    ratio = log_ratio.exp()
    clipped = ratio.clamp(1 - clip_low, 1 + clip_high)
    bounded = ratio if dual is None else ratio.clamp(max=dual)
    loss = -torch.minimum(bounded * advantages, clipped * advantages).mean()
    with torch.no_grad():
        stopped = ((ratio < 1 - clip_low) & (advantages < 0)) | ((ratio > 1 + clip_high) & (advantages > 0))
        if dual is not None:
            stopped |= (ratio > dual) & (advantages < 0)
        metrics = {
            "ratio": float(ratio.mean()),
            "clip_fraction": float(stopped.float().mean()),
            "approx_kl": float((ratio - 1 - log_ratio).mean()),
        }
    return loss, metrics


def gaussian_kl(mean: Tensor, reference_mean: Tensor, std: Tensor | float) -> Tensor:
    """Elementwise, exact KL of two Gaussians of one deviation: (mean - reference)^2 / (2 std^2)."""
    return (mean - reference_mean) ** 2 / (2 * std**2)  # pyright: ignore[reportReturnType]
