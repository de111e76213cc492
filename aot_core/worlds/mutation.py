"""What mutations of edits are in any world: how many edits a child may have, and lists that differ in one entry."""

from collections.abc import Iterator, Sequence
from typing import TypeVar

from aot_core.contracts.attack import Change

T = TypeVar("T")


def allows(change: Change, count: int, bounds: tuple[int, int]) -> bool:
    """Whether a child of a parent with `count` edits has at least the first of `bounds`, at most the second."""
    least, most = bounds
    return not (change == "fewer" and count <= least) and not (change == "more" and count >= most)


def replaced(entries: Sequence[T], index: int, entry: T) -> list[T]:
    """The entries, with another one at an index."""
    return [*entries[:index], entry, *entries[index + 1 :]]


def one_less(entries: Sequence[T]) -> Iterator[list[T]]:
    """The entries, each left out once."""
    for index in range(len(entries)):
        yield [*entries[:index], *entries[index + 1 :]]
