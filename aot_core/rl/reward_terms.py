"""Reward terms of one's own, held to their contract: in time, one finite score for each of a batch."""

import threading
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np

from aot_core.contracts.errors import ToldError

T = TypeVar("T")


class RewardError(ValueError):
    """A reward term gave no usable scores. The message names the term and what it was to score."""


class RewardTimeoutError(ToldError, RuntimeError):
    """A reward term did not come back. Trying again may help: it may wait for something outside."""


def checked(
    name: str,
    term: Callable[[Sequence[T]], Sequence[float]],
    seconds: float,
    *,
    field: str,
    noun: str,
    told: Callable[[T], str],
) -> Callable[[Sequence[T]], list[float]]:
    """The term, held to its contract. What it returns raises RewardError, RewardTimeoutError.

    Args:
        seconds: it must come back within.
        field: the config's, which sets them.
        noun, told: what is scored, in general and one of it, for messages.
    """

    def score(batch: Sequence[T]) -> list[float]:
        scores = _in_time(name, term, batch, seconds, field)
        if len(scores) != len(batch):
            raise RewardError(f"reward {name!r} gave {len(scores)} scores for {len(batch)} {noun}s; give one for each")
        for value, one in zip(scores, batch, strict=True):
            if not np.isfinite(value):
                raise RewardError(f"reward {name!r} is {value} for the {noun} {told(one)}; give a number")
        return [float(value) for value in scores]

    return score


def _in_time(
    name: str, term: Callable[[Sequence[T]], Sequence[float]], batch: Sequence[T], seconds: float, field: str
) -> list[float]:
    """What the term gives, from a thread that is left behind where it hangs: it cannot keep the process alive."""
    found: dict[str, Any] = {}

    def run() -> None:
        try:
            found["scores"] = list(term(batch))
        except Exception as error:
            found["error"] = error

    thread = threading.Thread(target=run, daemon=True, name=f"reward {name}")
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        raise RewardTimeoutError(
            f"reward {name!r} did not come back within {seconds:g} seconds; mend it, or raise {field}"
        )
    if "error" in found:
        error = found["error"]
        raise RewardError(f"reward {name!r} raised {type(error).__name__}: {error}") from error
    return found["scores"]
