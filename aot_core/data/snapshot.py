"""What a growing data set remembers of the photographs and shards it was made of: `snapshot.json`, beside the tables.

    data set of the last edition --read_snapshot--> Snapshot --growing.plan_growth--> which of its shards stay
                                 --take_shard-----> WORK/SHARD/, as its maker left it

Photographs are told by content (`Photographs.content`), so a snapshot fits whatever folder holds them.
"""

from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import Field, ValidationError

from aot_core.contracts.base import Frozen
from aot_core.contracts.scene import Split
from aot_core.data.dataset import DATA, REJECTIONS, TABLE, file_sha256, read_manifest
from aot_core.data.shards import Shard, ShardRecord, ShardWriter
from aot_core.data.splits import SPLITS
from aot_core.worlds.images import DataError, safe_path

SNAPSHOT = "snapshot.json"


class SnapshotPicture(Frozen):
    """A photograph that a split was found for."""

    content: str
    """sha256 of the file, its annotations and its name."""
    looks: str
    """Its perceptual hash."""
    split: Split


class SnapshotShard(Frozen):
    """A shard and what it was made of; photographs by their place in `Snapshot.pictures`."""

    split: Split
    index: int
    key: str
    wanted: int
    pictures: tuple[int, ...]
    donors: tuple[int, ...]
    samples: int
    funnel: dict[str, int]


class Snapshot(Frozen):
    """`snapshot.json`."""

    basis: str
    """sha256 of all that decides every shard alike: config, models, the stage's version."""
    pictures: tuple[SnapshotPicture, ...]
    shards: tuple[SnapshotShard, ...]
    next_index: dict[str, int] = Field(default_factory=dict)
    """Split to the number that its next shard gets: none is given twice, whatever becomes of the shard."""


def read_snapshot(folder: Path) -> Snapshot | None:
    """A data set's snapshot; None where it was not made with `growing`. Raises DataError for a damaged one."""
    read_manifest(folder)
    path = folder / SNAPSHOT
    if not path.is_file():
        return None
    try:
        return Snapshot.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise DataError(f"{path} cannot be read ({error.errors()[0]['msg']}); make the data set again") from error


def write_snapshot(folder: Path, snapshot: Snapshot) -> None:
    """Write `snapshot.json`. Equal snapshots give equal bytes."""
    (folder / SNAPSHOT).write_text(snapshot.model_dump_json() + "\n")


class SnapshotShards:
    """The shards of a data set on disk, taken out of it one by one. Raises DataError where a table was changed."""

    def __init__(self, folder: Path, snapshot: Snapshot) -> None:
        self._folder = folder
        self._shards = {(shard.split, shard.index): shard for shard in snapshot.shards}
        self._starts: dict[tuple[Split, int], int] = {}
        ends: Counter[str] = Counter()
        for shard in snapshot.shards:
            self._starts[shard.split, shard.index] = ends[shard.split]
            ends[shard.split] += shard.samples
        for name, sha256 in read_manifest(folder)["tables"].items():
            if file_sha256(safe_path(folder, name)) != sha256:
                raise _changed(folder, name)
        self._tables = {s: pq.ParquetFile(folder / DATA / s / TABLE) for s in SPLITS if ends[s]}
        self._rejections = pq.read_table(folder / REJECTIONS)

    def take(self, shard: Shard, work: Path) -> ShardRecord:
        """Put a shard into the folder `work` as its maker left it, its images under a second name."""
        known = self._shards[shard.split, shard.index]
        base = self._folder / DATA / shard.split
        with ShardWriter(work, shard, known.key) as writer, writer.timed("taken"):
            writer.rows = self._rows(known)
            for row in writer.rows:
                for name, sha256 in (
                    (row["file_name"], row["image_sha256"]), (row["edited_file_name"], row["edited_sha256"])
                ):  # fmt: skip
                    # The versions of a question share their clean image.
                    if name is not None and not writer.has(Path(name).name):
                        path = safe_path(base, name)
                        if not path.is_file() or file_sha256(path) != sha256:
                            raise _changed(self._folder, f"{DATA}/{shard.split}/{name}")
                        writer.link_image(path, sha256)
            writer.rejections = self._rejected(known)
            writer.funnel.update(known.funnel)
            return writer.finish()

    def _rows(self, shard: SnapshotShard) -> list[dict[str, Any]]:
        start, rows = self._starts[shard.split, shard.index], []
        end, first = start + shard.samples, 0
        if not shard.samples:
            return []
        table = self._tables[shard.split]
        for group in range(table.num_row_groups):
            count = table.metadata.row_group(group).num_rows
            a, b = max(start, first), min(end, first + count)
            if a < b:
                rows += table.read_row_group(group, use_threads=False).slice(a - first, b - a).to_pylist()
            first += count
        assert len(rows) == shard.samples, "the manifest's hashes hold, so the tables are the ones that were written"
        return rows

    def _rejected(self, shard: SnapshotShard) -> list[dict[str, Any]]:
        own = (pc.field("split") == shard.split) & (pc.field("shard") == shard.index)
        return self._rejections.filter(own).to_pylist()


def _changed(folder: Path, name: str) -> DataError:
    return DataError(
        f"previous data set {folder}: {name} is missing or was changed since it was made, so none of it is taken over; "
        "give a whole one, or none"
    )
