"""What an edit is conditioned on, whichever editor makes it: rows of tensors that the trainers select and repeat.

A trainer knows a condition's length, its source latents and how to take rows of it; what else is in it is between the
editor's `encode` and its `velocity`.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, Self

import torch
from torch import Tensor


@dataclass(frozen=True)
class Conditioning:
    """What B edits are conditioned on. Every field is a tensor of B rows, a tuple of B things, or None."""

    source: Tensor
    """The sources' clean latents, of the shape of the editor's latents."""

    channel_dim: ClassVar[int] = 1
    """Which dimension of the latents holds the channels of a place: 1 of (B, C, h, w), 2 of packed (B, S, C)."""

    def __len__(self) -> int:
        return len(self.source)

    def select(self, index: Tensor | slice) -> Self:
        """The edits of these numbers (integers into B) or of this slice."""
        return self._of_each(lambda part: _rows(part, index))

    def repeat(self, times: int) -> Self:
        """Every edit `times` times in a row: B becomes B * times, a group after the other."""
        rows = torch.arange(len(self)).repeat_interleave(times)
        return self._of_each(lambda part: _rows(part, rows))

    def to(self, device: torch.device | str) -> Self:
        return self._of_each(lambda part: part.to(device) if isinstance(part, Tensor) else part)

    def _of_each(self, change: Callable[[Any], Any]) -> Self:
        parts = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(self, **{name: None if part is None else change(part) for name, part in parts.items()})


def _rows(part: Any, index: Tensor | slice) -> Any:
    if isinstance(part, Tensor):
        return part[index if isinstance(index, slice) else index.to(part.device)]
    return part[index] if isinstance(index, slice) else tuple(part[number] for number in index.tolist())
