"""Work on a batch in parts, twice as many whenever the device's memory is full.

accelerate's `find_executable_batch_size` begins anew with every call and cannot clear away half a gradient; this
remembers in how many parts the work fitted, and lets its owner undo what the failed try has left.
"""

import logging
from collections.abc import Callable
from typing import TypeVar

import torch

logger = logging.getLogger(__name__)
T = TypeVar("T")


class Halving:
    """In how many parts something is done; shared by all calls that need about the same memory."""

    def __init__(self, told: str, parts: int = 1) -> None:
        """
        Args:
            told: what is done, for the log: "a micro-batch is trained".
        """
        self.parts, self._told = parts, told

    def run(self, work: Callable[[], T], most: int, undo: Callable[[], None] | None = None) -> T:
        """What `work` returns, done again in twice as many `parts` as often as memory is full.

        Args:
            work: reads `parts`, and begins from the start at every call.
            most: parts beyond which the batch cannot be cut, such as its rows. 0 allows no second try.
            undo: clears away what a failed try has left; called before the next one.

        Raises torch.OutOfMemoryError where `most` parts do not fit either.
        """
        while True:
            try:
                return work()
            except torch.OutOfMemoryError:
                if self.parts >= most:
                    raise
                self.parts *= 2
                logger.warning("out of memory: from now on %s in %d parts", self._told, self.parts)
            # Not in the handler: the error holds the frames, and with them the tensors, of the failed try.
            if undo is not None:
                undo()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
