"""Has a benchmark's picture been trained on? COCO's photographs stand in several benchmarks, and in training data too.

Compared by perceptual hash, as the guard compares splits: a training picture is scaled, extended and encoded anew, so
the bytes of the two are never the same.
"""

from collections.abc import Sequence
from pathlib import Path

import pyarrow.parquet as pq

from aot_core.data.dataset import tables_of
from aot_core.evaluation.benchmarks.items import BenchmarkItem
from aot_core.worlds.images import open_image
from aot_core.worlds.likeness import alike_across, perceptual_hash

ALIKE_BITS = 8
"""Hashes that differ in at most this many of 192 bits are called alike, as by `prepare_data.guard`."""
_ASKED, _TRAINED = "asked", "trained"


def training_sources(dataset: Path) -> set[str]:
    """The perceptual hashes of all source pictures of a data set but those of its `evaluate` split."""
    found: set[str] = set()
    for path in tables_of(dataset):
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(columns=["split", "source_hash"]):
                rows = batch.to_pylist()
                found.update(row["source_hash"] for row in rows if row["split"] != "evaluate" and row["source_hash"])
    return found


def count_seen(items: Sequence[BenchmarkItem], trained: set[str]) -> int:
    """How many of the questions show a picture that looks like one of the training sources.

    Raises DataError for a picture that cannot be read.
    """
    if not trained:
        return 0
    hashes: dict[str, str] = {}
    for item in items:
        for name, sha256 in zip(item.images, item.image_sha256, strict=True):
            if sha256 not in hashes:
                hashes[sha256] = perceptual_hash(open_image(item.folder, name))
    groups = {source: [_TRAINED] for source in trained}
    for asked in set(hashes.values()):
        groups[asked] = [*groups.get(asked, []), _ASKED]
    alike = alike_across(groups, ALIKE_BITS)
    return sum(any(hashes[sha256] in alike for sha256 in item.image_sha256) for item in items)
