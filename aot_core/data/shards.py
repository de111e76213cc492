"""The unit of work: a shard is some of a split's questions, made from its own seed, finished or not there.

    config ----wanted_shards----> Shard, Shard, ... ----ShardMaker.make----> folder/SHARD/{*.png, rows.parquet,
                                                                    rejections.parquet, facts.parquet, shard.json}

A shard's randomness is spawned from the campaign's seed by its split and number, and its source pictures are told by
its number too: so whoever makes it, in whichever order, on however many workers, makes the same bytes. `shard.json` is
written last, and the folder is renamed into its place: a kill leaves a shard finished, or nothing.
"""

import json
import os
import shutil
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from aot_core.contracts.base import decisive, sha256_of
from aot_core.contracts.prepare_data import PrepareDataConfig
from aot_core.contracts.scene import Split
from aot_core.data.dataset import DATA, REJECTION_SCHEMA, SCHEMA, file_sha256
from aot_core.data.facts import FACTS, note_facts
from aot_core.data.splits import SPLITS

ROWS, REJECTED, SHARD = "rows.parquet", "rejections.parquet", "shard.json"
_TABLES = (ROWS, REJECTED, FACTS)


@dataclass(frozen=True)
class Shard:
    """Some of a split's questions."""

    split: Split
    index: int
    """Its number within the split."""
    wanted: int
    """Questions."""
    asked: int | None = None
    """About how many of its pairs the base Defender is asked; None: all of them."""
    pictures: tuple[int, ...] = ()
    """growing: the numbers of its photographs in the source."""
    donors: tuple[int, ...] = ()
    """growing: those of further photographs that distractors are cut from."""
    key: str = ""
    """growing: sha256 of all that it is made of (`growing.plan_growth`)."""

    @property
    def name(self) -> str:
        return f"{self.split}-{self.index:05d}"

    @property
    def base(self) -> str:
        """Where its images lie in the finished data set, relative to that."""
        return f"{DATA}/{self.split}/{self.index:05d}"

    def seed(self, seed: int, *further: int) -> np.random.SeedSequence:
        """The shard's own seed, and under it one for each attempt or step."""
        if self.key:
            words = [int(self.key[i : i + 8], 16) for i in range(0, 64, 8)]
            return np.random.SeedSequence(seed, spawn_key=(SPLITS.index(self.split), *words, *further))
        return np.random.SeedSequence(seed, spawn_key=(SPLITS.index(self.split), self.index, *further))


def wanted_shards(config: PrepareDataConfig) -> list[Shard]:
    """All shards of a data set, in its order."""
    shards: list[Shard] = []
    for split in SPLITS:
        total = getattr(config.splits, split)
        for index, first in enumerate(range(0, total, config.shard_size)):
            end = min(first + config.shard_size, total)
            asked = config.effectiveness.asked if split == "warm_start" else None
            # The pairs to be asked about are spread evenly over the shards.
            part = None if asked is None else min(asked, total) * end // total - min(asked, total) * first // total
            shards.append(Shard(split, index, end - first, part))
    return shards


def build_key(config: PrepareDataConfig, contents: Sequence[str]) -> str:
    """What makes two runs the same: the config, and the sha256 of everything read from outside."""
    return sha256_of({"config": decisive(config), "contents": list(contents)})


@dataclass(frozen=True)
class ShardRecord:
    """`shard.json`: what a finished shard holds."""

    shard: str
    plan: str
    """`build_key` of the run that made it, of a growing source the shard's own key; of another one it is no use."""
    samples: int
    pairs: int
    funnel: dict[str, int]
    seconds: dict[str, float]
    """CPU seconds per step. Not part of the data set: nothing that ticks may be."""
    files: dict[str, str]
    """File to sha256."""
    noted: str = ""
    """The digest by which the guard finds what `facts.parquet` says of these rows."""

    @property
    def images(self) -> list[str]:
        return [name for name in self.files if name not in _TABLES]


class ShardWriter:
    """Collects a shard in a folder of its own beside its place, and puts it there when it is finished."""

    def __init__(self, work: Path, shard: Shard, key: str) -> None:
        self._work, self._shard, self._key = work, shard, shard.key or key
        work.mkdir(parents=True, exist_ok=True)
        self.folder = Path(tempfile.mkdtemp(prefix=f".{shard.name}.", dir=work))
        self.rows: list[dict[str, Any]] = []
        self.rejections: list[dict[str, Any]] = []
        self.funnel: Counter[str] = Counter()
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._files: dict[str, str] = {}

    def __enter__(self) -> "ShardWriter":
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    @contextmanager
    def timed(self, step: str) -> Iterator[None]:
        """Count the block's CPU time as the step's."""
        started = process_time()
        try:
            yield
        finally:
            self.seconds[step] += process_time() - started

    def add_image(self, name: str, content: bytes, sha256: str) -> None:
        (self.folder / name).write_bytes(content)
        self._files[name] = sha256

    def has(self, name: str) -> bool:
        """Whether an image of that name was added."""
        return name in self._files

    def link_image(self, path: Path, sha256: str) -> None:
        """Add an image that lies elsewhere: under a second name where the disk allows, else as a copy."""
        link(str(path), str(self.folder / path.name))
        self._files[path.name] = sha256

    def finish(self) -> ShardRecord:
        """Write the tables and the record, and move the folder into its place."""
        with self.timed("tables"):
            pq.write_table(pa.Table.from_pylist(self.rows, schema=SCHEMA), self.folder / ROWS)
            pq.write_table(pa.Table.from_pylist(self.rejections, schema=REJECTION_SCHEMA), self.folder / REJECTED)
        with self.timed("facts"):
            # Of what was written, not of what was to be.
            written = read_rows(self.folder / ROWS)
            noted = note_facts(self.folder / FACTS, written, str(Path(self._shard.base).parent))
        for name in (ROWS, REJECTED, FACTS):
            self._files[name] = file_sha256(self.folder / name)
        record = ShardRecord(
            shard=self._shard.name,
            plan=self._key,
            samples=len(self.rows),
            pairs=sum(row["edited_file_name"] is not None for row in self.rows),
            funnel=dict(sorted(self.funnel.items())),
            seconds={name: round(seconds, 4) for name, seconds in sorted(self.seconds.items())},
            files=dict(sorted(self._files.items())),
            noted=noted,
        )
        with (self.folder / SHARD).open("w") as stream:
            json.dump(record.__dict__, stream, indent=1)
            stream.flush()
            os.fsync(stream.fileno())
        target = self._work / self._shard.name
        # What stands there is of another build or was damaged: `find_shard` did not take it.
        shutil.rmtree(target, ignore_errors=True)
        self.folder.rename(target)
        return record


def link(made: str, placed: str) -> None:
    """Put a file under a second name; copied where the disk has none."""
    try:
        os.link(made, placed)
    except FileExistsError:
        return
    except OSError:
        shutil.copyfile(made, placed)


def find_shard(work: Path, shard: Shard, key: str) -> ShardRecord | None:
    """The record of a shard that an earlier run finished and whose files are what they were; else None."""
    path = work / shard.name / SHARD
    try:
        record = ShardRecord(**json.loads(path.read_text()))
    except (FileNotFoundError, json.JSONDecodeError, TypeError):
        return None
    if record.plan != (shard.key or key) or not _sound(path.parent, record.files):
        return None
    return record


def _sound(folder: Path, files: Mapping[str, str]) -> bool:
    return all((folder / name).is_file() and file_sha256(folder / name) == sha256 for name, sha256 in files.items())


def read_rows(path: Path) -> pa.Table:
    """A shard's table, on one thread: shards are read side by side."""
    with pq.ParquetFile(path) as file:
        return file.read(use_threads=False)


def sweep(work: Path) -> None:
    """Remove what killed workers left unfinished. To be called while no other run works in the folder."""
    for leftover in work.glob(".*-*"):
        shutil.rmtree(leftover, ignore_errors=True)
