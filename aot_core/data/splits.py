"""Who gets which source pictures: no picture stands in two splits."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count

import numpy as np

from aot_core.contracts.scene import Split
from aot_core.worlds.images import DataError

SPLITS: tuple[Split, ...] = ("warm_start", "train", "evaluate")

LEAST: Mapping[Split, int] = {"warm_start": 2, "train": 1, "evaluate": 2}
"""The fewest photographs a split can work with: distractors for one come from another one of its split."""


@dataclass(frozen=True)
class Share:
    """One split's source pictures, by number."""

    indices: Sequence[int]
    """All of them, where the source ends; else empty."""
    first: int = 0
    step: int = 1
    """Of an endless source: every `step`-th from `first`."""

    def starting_at(self, place: int) -> Iterator[int]:
        """The pictures in the order of their use, from a place on: again and again where the source ends."""
        if self.indices:
            return (self.indices[turn % len(self.indices)] for turn in count(place))
        return count(self.first + self.step * place, self.step)


def share_out(
    size: int | None, wanted: Mapping[Split, int], least: Mapping[Split, int], rng: np.random.Generator
) -> dict[Split, Share]:
    """A share for every split that wants samples, at random, in proportion to the samples wanted.

    Args:
        size: how many pictures the source has; None without end.
        wanted: samples wanted per split; a split that wants 0 gets no picture.
        least: the fewest pictures a split can work with.

    Raises DataError where the source has too few.
    """
    asked: list[Split] = [split for split in SPLITS if wanted[split] > 0]
    if size is None:
        return {split: Share((), first=place, step=len(asked)) for place, split in enumerate(asked)}
    needed = sum(least[split] for split in asked)
    if size < needed:
        wants = ", ".join(f"{split} {least[split]}" for split in asked)
        raise DataError(
            f"the source holds {size} images and the splits need {needed} ({wants}), as they share none; "
            "add images, or set the size of a split to 0"
        )
    total = sum(wanted[split] for split in asked)
    spare = size - needed
    counts = {split: least[split] + spare * wanted[split] // total for split in asked}
    counts[asked[0]] += size - sum(counts.values())
    order = [int(i) for i in rng.permutation(size)]
    shares: dict[Split, Share] = {}
    for split in asked:
        shares[split] = Share(order[: counts[split]])
        order = order[counts[split] :]
    return shares
