import pytest
import torch

from aot_core.rl.surrogate import clipped_surrogate, gaussian_kl


def test_ratio_one_gives_the_plain_policy_gradient():
    logprobs = torch.tensor([-1.0, -2.0], requires_grad=True)
    loss, metrics = clipped_surrogate(logprobs, logprobs.detach(), torch.tensor([1.0, -3.0]))
    loss.backward()
    assert loss.item() == pytest.approx(1.0)  # -(1 - 3) / 2
    assert logprobs.grad is not None
    assert torch.allclose(logprobs.grad, torch.tensor([-0.5, 1.5]))
    assert metrics == {"ratio": 1.0, "clip_fraction": 0.0, "approx_kl": 0.0}


def test_the_two_clips_stop_the_gradient_where_they_should():
    # Ratios 1.5 and 0.5, each with an advantage that would push it further, and one that pulls it back.
    ratios = torch.tensor([1.5, 1.5, 0.5, 0.5])
    logprobs = ratios.log().requires_grad_(True)
    advantages = torch.tensor([1.0, -1.0, -1.0, 1.0])
    loss, metrics = clipped_surrogate(logprobs, torch.zeros(4), advantages, clip_low=0.2, clip_high=0.28)
    loss.backward()
    # min(r A, clip(r) A): 1.28, -1.5, -0.8, 0.5
    assert loss.item() == pytest.approx(-(1.28 - 1.5 - 0.8 + 0.5) / 4)
    assert logprobs.grad is not None
    assert torch.allclose(logprobs.grad, torch.tensor([0.0, 1.5, 0.0, -0.5]) / 4)
    assert metrics["clip_fraction"] == 0.5


def test_gaussian_kl_equals_torchs():
    mean, reference = torch.tensor([0.3, -1.0]), torch.tensor([0.0, 1.0])
    expected = torch.distributions.kl_divergence(
        torch.distributions.Normal(mean, 0.7), torch.distributions.Normal(reference, 0.7)
    )
    assert torch.allclose(gaussian_kl(mean, reference, 0.7), expected)
