"""User-defined reward terms, with their contract enforced: in time, one finite score for each item of a batch."""

import math
import threading
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from aot_core.contracts.errors import ToldError

T = TypeVar("T")


class RewardError(ValueError):
    """A reward term returned no usable scores. The message names the term and what it was scoring."""


class RewardTimeoutError(ToldError, RuntimeError):
    """A reward term did not return. Trying again may help: it may have waited for something outside."""


def checked(
    name: str,
    term: Callable[[Sequence[T]], Sequence[float]],
    seconds: float,
    *,
    field: str,
    noun: str,
    told: Callable[[T], str],
) -> Callable[[Sequence[T]], list[float]]:
    """The term with its contract enforced. The function returned raises RewardError and RewardTimeoutError.

    Args:
        seconds: the time limit of a call.
        field: the config field that sets the limit, for messages.
        noun, told: the kind of item that is scored, and how one item is described, for messages.
    """

    def score(batch: Sequence[T]) -> list[float]:
        scores = _in_time(name, term, batch, seconds, field)
        if len(scores) != len(batch):
            raise RewardError(
                f"reward {name!r} returned {len(scores)} scores for {len(batch)} {noun}s; return one for each"
            )
        found: list[float] = []
        for value, one in zip(scores, batch, strict=True):
            try:
                found.append(float(value))
            except (TypeError, ValueError):
                found.append(math.nan)
            if not math.isfinite(found[-1]):
                raise RewardError(
                    f"reward {name!r} returned {value!r} for the {noun} {told(one)}; return a finite number"
                )
        return found

    return score


def _in_time(
    name: str, term: Callable[[Sequence[T]], Sequence[float]], batch: Sequence[T], seconds: float, field: str
) -> list[float]:
    """Call the term in a daemon thread: one that hangs is abandoned and cannot keep the process alive."""
    found: dict[str, Any] = {}

    def run() -> None:
        try:
            found["scores"] = list(term(batch))
        except BaseException as error:  # a SystemExit would end this thread alone, unnoticed
            found["error"] = error

    thread = threading.Thread(target=run, daemon=True, name=f"reward {name}")
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        raise RewardTimeoutError(f"reward {name!r} did not return within {seconds:g} seconds; fix it, or raise {field}")
    if "error" in found:
        error = found["error"]
        raise RewardError(f"reward {name!r} raised {type(error).__name__}: {error}") from error
    return found["scores"]
