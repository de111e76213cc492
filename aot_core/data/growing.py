"""Which shards a growing folder of photographs is made of, and which of them the last data set already holds.

    source --content, looks--> split of each photograph --chunks of what no kept shard covers--> shards
    snapshot of the last data set --shards whose photographs all still stand-------------------> kept

A shard is a function of its own contents: the photographs, those that distractors are cut from, the names that things
have in the source when it is made, and the config; its key is their hash, and its randomness is spawned from that. So a
photograph that comes opens a new shard, and changes no other; one that goes, or whose boxes are corrected, dissolves
its own, and the rest of that are made anew.

A photograph's split follows from its perceptual hash: neither the seed nor the other photographs move it, so what was
trained on in one edition is examined in none. One that looks like another goes into that one's split; one that looks
like several of different splits is set aside.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from aot_core.contracts.base import Frozen, decisive, sha256_of
from aot_core.contracts.prepare_data import VERSION, PrepareDataConfig, SplitSizes
from aot_core.contracts.scene import Split
from aot_core.data.shards import Shard, ShardRecord
from aot_core.data.snapshot import Snapshot, SnapshotPicture, SnapshotShard
from aot_core.data.splits import LEAST, SPLITS
from aot_core.worlds.images import DataError, RowError
from aot_core.worlds.opening import open_source
from aot_core.worlds.protocol import DONORS
from aot_core.worlds.sources import Photographs, Source, Unusable

_DONORS_AT_LEAST = 16
"""A shard of fewer photographs than this borrows others of its split to cut distractors from."""
_AT_A_TIME = 64
_PER_WORKER = 500
"""A worker process takes seconds to start: fewer photographs than this each are not worth one."""


class BuildPlan(Frozen):
    """The shards of a data set, in its order."""

    shards: tuple[Shard, ...]
    kept: frozenset[str] = frozenset()
    """Names of the shards that the previous data set holds."""
    unusable: tuple[Unusable, ...] = ()
    """Photographs with something wrong, found while their looks were taken."""
    aside: tuple[Unusable, ...] = ()
    """Sound photographs that no split can have."""
    basis: str = ""
    pictures: tuple[SnapshotPicture, ...] = ()
    """growing: every photograph that has a split, in the source's order."""
    places: tuple[int, ...] = ()
    """Their numbers in the source."""
    next_index: dict[str, int] = Field(default_factory=dict)
    new: int = 0
    """Photographs that the previous data set did not hold."""
    gone: int = 0
    """Photographs that only the previous data set held."""

    def snapshot(self, records: Mapping[str, ShardRecord]) -> Snapshot:
        """What the finished data set is to remember."""
        place = {number: place for place, number in enumerate(self.places)}
        return Snapshot(
            basis=self.basis,
            pictures=self.pictures,
            next_index=self.next_index,
            shards=tuple(
                SnapshotShard(
                    split=shard.split,
                    index=shard.index,
                    key=shard.key,
                    wanted=shard.wanted,
                    pictures=tuple(place[number] for number in shard.pictures),
                    donors=tuple(place[number] for number in shard.donors),
                    samples=records[shard.name].samples,
                    funnel=records[shard.name].funnel,
                )
                for shard in self.shards
            ),
        )


def basis_of(config: PrepareDataConfig, models: Sequence[str]) -> str:
    """What all shards have in common: the config, without what only judges a finished data set; the models; the code's
    version."""
    settings: dict[str, Any] = decisive(config)
    settings["guard"] = {"near_duplicate_bits": config.guard.near_duplicate_bits}
    settings["source"] = {name: value for name, value in settings["source"].items() if name != "max_rejected"}
    return sha256_of({"config": settings, "models": list(models), "version": VERSION})


def plan_growth(
    config: PrepareDataConfig, folder: Path, index: Path, models: Sequence[str], previous: Snapshot | None, workers: int
) -> BuildPlan:
    """The shards of the folder as it is.

    Args:
        index: the folder of the source's index, as `open_source` takes it.
        models: what pins the models that are asked.
        previous: of the last data set; one of another config counts as none.
        workers: processes that look at photographs, where there are many new ones.

    Raises DataError where a split has too few photographs.
    """
    # Late: it brings pandas and SciPy, which no worker needs.
    from aot_core.data.checks import in_processes

    source = open_source(config, folder, index)
    assert isinstance(source, Photographs), "the config takes `growing` for photographs alone"
    basis = basis_of(config, models)
    if previous is not None and previous.basis != basis:
        previous = None
    known = {picture.content: picture for picture in previous.pictures} if previous else {}
    sorting = _Sorting(config, previous.pictures if previous else ())
    contents, numbers = _contents(source, sorting)
    new = [content for content in contents if content not in known]
    look = partial(_looks, config, folder, index)
    batches = [[numbers[c] for c in new[i : i + _AT_A_TIME]] for i in range(0, len(new), _AT_A_TIME)]
    looked = [one for batch in in_processes(look, batches, min(workers, len(new) // _PER_WORKER)) for one in batch]
    fresh = {c: found for c, one in zip(new, looked, strict=True) if (found := sorting.place(c, one))}
    pictures = [picture for c in contents if (picture := known.get(c) or fresh.get(c))]
    _refuse_thin(config.splits, pictures)
    places = [numbers[picture.content] for picture in pictures]
    shards, kept, next_index = _shards(config, pictures, places, basis, source, previous)
    return BuildPlan(
        shards=tuple(shards),
        kept=frozenset(kept),
        unusable=tuple(sorting.unusable),
        aside=tuple(sorting.aside),
        basis=basis,
        pictures=tuple(pictures),
        places=tuple(places),
        next_index=next_index,
        new=len(fresh),
        gone=len(known.keys() - numbers.keys()),
    )


def split_of(looks: str, sizes: SplitSizes) -> Split:
    """The split of a photograph of these looks, when it looks like no other: in the proportion of the sizes."""
    wanted: list[tuple[Split, int]] = [(split, size) for split in SPLITS if (size := getattr(sizes, split))]
    point = int(sha256(looks.encode()).hexdigest()[:16], 16) * sum(size for _, size in wanted) >> 64
    for split, size in wanted:
        if point < size:
            return split
        point -= size
    raise AssertionError("the point lies below the sum of the sizes")


@dataclass(frozen=True)
class _Look:
    """What a photograph that was opened looks like, or why it cannot be used."""

    looks: str = ""
    reason: str = ""
    detail: str = ""


def _looks(config: PrepareDataConfig, folder: Path, index: Path, numbers: Sequence[int]) -> list[_Look]:
    source, found = open_source(config, folder, index), []
    for number in numbers:
        try:
            found.append(_Look(looks=source.picture(number).scene.source_hash))
        except RowError as error:
            found.append(_Look(reason=error.reason, detail=str(error)))
    return found


class _Sorting:
    """Gives photographs their splits, one after the other."""

    def __init__(self, config: PrepareDataConfig, known: Iterable[SnapshotPicture]) -> None:
        self._sizes, self._bits = config.splits, config.guard.near_duplicate_bits
        self._splits: list[Split] = []
        self._packed = np.zeros((1024, 3), np.uint64)
        self.unusable: list[Unusable] = []
        self.aside: list[Unusable] = []
        for picture in known:
            self._remember(picture.looks, picture.split)

    def place(self, content: str, look: _Look) -> SnapshotPicture | None:
        """The photograph with its split; None, with the reason kept, where it gets none."""
        if look.reason:
            self.unusable.append(Unusable("", look.reason, look.detail))
            return None
        like = np.bitwise_count(self._packed[: len(self._splits)] ^ _words(look.looks)).sum(axis=1) <= self._bits
        splits: set[Split] = {self._splits[int(place)] for place in np.flatnonzero(like)}
        if len(splits) > 1:
            detail = f"photograph {content[:12]} looks like photographs of {' and '.join(sorted(splits))}"
            self.aside.append(Unusable(content[:12], "alike_across_splits", detail))
            return None
        split = splits.pop() if splits else split_of(look.looks, self._sizes)
        self._remember(look.looks, split)
        return SnapshotPicture(content=content, looks=look.looks, split=split)

    def _remember(self, looks: str, split: Split) -> None:
        if len(self._splits) == len(self._packed):
            self._packed = np.concatenate([self._packed, np.zeros_like(self._packed)])
        self._packed[len(self._splits)] = _words(looks)
        self._splits.append(split)


def _words(looks: str) -> "np.ndarray[Any, np.dtype[np.uint64]]":
    return np.frombuffer(bytes.fromhex(looks), np.uint64)


def _contents(source: Photographs, sorting: _Sorting) -> tuple[list[str], dict[str, int]]:
    """The contents of all photographs in the source's order, each once, and their numbers."""
    numbers: dict[str, int] = {}
    assert source.size is not None, "photographs end"
    for number in range(source.size):
        try:
            label, content = source.content(number)
        except RowError as error:
            sorting.unusable.append(Unusable("", error.reason, str(error)))
            continue
        if content in numbers:
            sorting.aside.append(Unusable(content[:12], "duplicate", f"photograph {label!r} ({content[:12]}) is twice"))
        else:
            numbers[content] = number
    return list(numbers), numbers


def _refuse_thin(sizes: SplitSizes, pictures: Sequence[SnapshotPicture]) -> None:
    for split in SPLITS:
        count = sum(picture.split == split for picture in pictures)
        if getattr(sizes, split) and count < LEAST[split]:
            raise DataError(
                f"splits.{split}: {count} of the source's {len(pictures)} usable photographs are assigned to it by "
                f"their looks (growing), and it needs {LEAST[split]}; add photographs, raise its size relative to the "
                "others, or set it to 0"
            )


def _shards(
    config: PrepareDataConfig,
    pictures: Sequence[SnapshotPicture],
    places: Sequence[int],
    basis: str,
    source: Source,
    previous: Snapshot | None,
) -> tuple[list[Shard], set[str], dict[str, int]]:
    """All shards in the data set's order, the names of those that are kept, and each split's next number."""
    numbers = {picture.content: number for picture, number in zip(pictures, places, strict=True)}
    contents = {number: content for content, number in numbers.items()}
    next_index = dict(previous.next_index) if previous else {}
    shards: list[Shard] = []
    covered: set[int] = set()
    for known in previous.shards if previous else ():
        assert previous is not None
        of = [[numbers.get(previous.pictures[n].content) for n in part] for part in (known.pictures, known.donors)]
        own, donors = (tuple(n for n in part if n is not None) for part in of)
        if len(own) == len(known.pictures) and len(donors) == len(known.donors):
            shards.append(Shard(known.split, known.index, known.wanted, pictures=own, donors=donors, key=known.key))
            covered.update(own)
    kept = {shard.name for shard in shards}
    names = sha256_of({"names": list(source.names), "kinds": dict(source.kinds)})
    most = config.shard_size // config.questions_per_picture
    for split in SPLITS:
        members = [n for picture, n in zip(pictures, places, strict=True) if picture.split == split]
        open_ones = [n for n in members if n not in covered]
        for first in range(0, len(open_ones), most):
            own = tuple(open_ones[first : first + most])
            donors = _donors(own, members, contents)
            index = next_index.get(split, 0)
            next_index[split] = index + 1
            made_of = {"pictures": [contents[n] for n in own], "donors": [contents[n] for n in donors]}
            key = sha256_of({"basis": basis, "split": split, "index": index, "names": names, **made_of})
            wanted = len(own) * config.questions_per_picture
            shards.append(Shard(split, index, wanted, pictures=own, donors=donors, key=key))
    return sorted(shards, key=lambda shard: (SPLITS.index(shard.split), shard.index)), kept, next_index


def _donors(own: Sequence[int], members: Sequence[int], contents: Mapping[int, str]) -> tuple[int, ...]:
    """Further photographs of the split that a small shard borrows things from, chosen by its own contents."""
    lacking = min(_DONORS_AT_LEAST, DONORS) - len(own)
    if lacking <= 0:
        return ()
    mine = sha256_of([contents[number] for number in own])
    others = sorted(set(members) - set(own), key=lambda n: sha256(f"{mine}{contents[n]}".encode()).digest())
    return tuple(others[:lacking])
