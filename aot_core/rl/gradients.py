"""Clipping gradients, and the last look at them before the weights move."""

import math
from collections.abc import Iterable

import torch
from torch import nn

from aot_core.contracts.errors import NonFiniteLossError


def clip_gradients(parameters: Iterable[nn.Parameter], max_norm: float, stage: str) -> float:
    """Scale all gradients together to a norm of `max_norm` at most.

    A finite loss can have gradients that are not: clipping would spread them over all weights.

    Args:
        stage: the stage's name, for the message.

    Returns the norm before clipping. Raises NonFiniteLossError where it is not finite; no weight has moved then.
    """
    norm = float(torch.nn.utils.clip_grad_norm_(parameters, max_norm))
    if not math.isfinite(norm):
        raise NonFiniteLossError(
            f"{stage}: the norm of the gradients is {norm}; lower {stage}.learning_rate, or train in float32 "
            f"({stage}.model.dtype)"
        )
    return norm
