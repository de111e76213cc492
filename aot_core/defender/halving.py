"""Process a batch in parts, and in twice as many whenever the device runs out of memory.

accelerate's `find_executable_batch_size` starts over with every call and cannot discard a partial gradient. This
remembers how many parts fitted, and lets its owner undo what a failed attempt has left.
"""

import logging
from collections.abc import Callable
from typing import TypeVar

import torch

logger = logging.getLogger(__name__)
T = TypeVar("T")


class Halving:
    """The number of parts that something is done in; shared by all calls that need about the same memory."""

    def __init__(self, told: str, parts: int = 1) -> None:
        """
        Args:
            told: what is being done, for the log: "a micro-batch is trained".
        """
        self.parts, self._told = parts, told

    def run(self, work: Callable[[], T], most: int, undo: Callable[[], None] | None = None) -> T:
        """What `work` returns; whenever it runs out of memory, it is repeated with twice as many `parts`.

        Args:
            work: reads `parts`, and begins from the start at every call.
            most: parts beyond which the batch cannot be cut, such as its rows. 0 allows no second try.
            undo: discards what a failed attempt has left; called before the next one.

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
