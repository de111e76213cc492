"""What the guard asks of a row that the row alone answers; noted where the row is made, and taken for no other row.

    shard/rows.parquet --note_facts, in the shard's worker--> shard/facts.parquet --noted_facts--> the guard
    a row group of a data set --------------------------------table_facts, where no note fits----> the guard

Facts are a function of a table's rows and of nothing else: files, other rows and the manifest are looked at by the
guard itself, on disk, every time. A note is found by a digest of the rows it is about and of the code that found it
out. The guard forms that digest of the rows that stand in the data set, so a note about other rows, or by other code,
is not used; nor is one whose own bytes have changed.

Row by row nothing is believed: a record that cannot be read, or that says something else than its row, is a finding and
no crash.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from aot_core import worlds
from aot_core.contracts import scene
from aot_core.contracts.scene import LETTERS, Box, Sample
from aot_core.data.dataset import SCHEMA, file_sha256, images_of
from aot_core.worlds.truth import truth

FACTS = "facts.parquet"

_COPIED = (
    "sample_id", "split", "source_id", "scene_id", "kind", "question", "answer", "file_name", "source_hash",
    "image_sha256", "ssim"
)  # fmt: skip
_ASKED = ("options", "edited_file_name", "clean_correct", "edited_correct", "record")
_OF_THE_RECORD = (
    "record_agrees", "boxes_inside", "truth_when_clean", "truth_when_edited", "pair_is_whole", "unseen_only_evaluated"
)  # fmt: skip
FACTS_SCHEMA = pa.schema(
    [
        *((name, SCHEMA.field(name).type) for name in _COPIED),
        ("options", pa.int64()),
        ("answer_is_an_option", pa.bool_()),
        ("effective", pa.float64()),
        *((name, pa.bool_()) for name in _OF_THE_RECORD),
        ("overlap", pa.float64()),
    ]
)
"""`effective` is 1 for a pair that fooled the base Defender, 0 for one that did not, null where it was not asked;
`overlap` is square pixels of protected boxes that edits may change, NaN where the record cannot be read."""


@dataclass(frozen=True)
class Note:
    """Where the facts of some rows have been noted."""

    path: Path
    sha256: str
    """Of the file."""
    rows: int


def note_facts(path: Path, rows: pa.Table, base: str) -> str:
    """Write the facts of these rows (of `dataset.SCHEMA`) to `path`; returns the digest to find the note by.

    Args:
        base: the folder of the table that the rows will stand in, relative to the data set's.
    """
    pq.write_table(table_facts(rows, base), path)
    return digest_of(rows, base)


def noted_facts(notes: Mapping[str, Note], rows: pa.Table, base: str) -> pa.Table | None:
    """The facts of these rows where a whole note about them exists, else None."""
    note = notes.get(digest_of(rows, base)) if notes else None
    if note is None or not note.path.is_file() or file_sha256(note.path) != note.sha256:
        return None
    with pq.ParquetFile(note.path) as file:
        return file.read(use_threads=False)


def table_facts(rows: pa.Table, base: str) -> pa.Table:
    """The facts of rows of `dataset.SCHEMA`, found out now: a table of `FACTS_SCHEMA`, in their order."""
    asked = rows.select([*_COPIED, *_ASKED]).to_pylist()
    return pa.Table.from_pylist([row_facts(row, base) for row in asked], schema=FACTS_SCHEMA)


def digest_of(rows: pa.Table, base: str) -> str:
    """A digest of these rows, their place and the code that examines them: 64 hex digits."""
    stream = pa.BufferOutputStream()
    with pa.ipc.new_stream(stream, SCHEMA) as writer:
        writer.write_table(rows.cast(SCHEMA).combine_chunks())
    digest = hashlib.sha256(f"{_code()}\n{base}\n".encode())
    digest.update(stream.getvalue())
    return digest.hexdigest()


@lru_cache(maxsize=1)
def _code() -> str:
    """The sha256 of the code that facts can depend on: this package's, the worlds', and what reads a record."""
    files = [
        *sorted(Path(__file__).parent.glob("*.py")),
        *sorted(Path(worlds.__file__ or "").parent.rglob("*.py")),
        Path(scene.__file__),
    ]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def row_facts(row: Mapping[str, Any], base: str) -> dict[str, Any]:
    """What one row says of itself, in the columns of `FACTS_SCHEMA`."""
    options, answer = row["options"] or [], row["answer"]
    facts: dict[str, Any] = {
        **{name: row[name] for name in _COPIED},
        "options": len(options),
        "answer_is_an_option": answer in list(LETTERS[: len(options)]) and len(set(options)) == len(options),
        "effective": _effective(row),
    }
    try:
        sample = Sample.model_validate_json(row["record"])
    except (ValidationError, TypeError):
        return {**facts, **dict.fromkeys(_OF_THE_RECORD, False), "overlap": float("nan")}
    return {
        **facts,
        "record_agrees": _agrees(sample, row, "" if base == "." else f"{base}/"),
        "boxes_inside": _boxes_inside(sample),
        "overlap": _overlap(sample),
        "truth_when_clean": truth(sample.question.query, sample.scene.objects) == sample.question.answer_text,
        "truth_when_edited": not sample.edits
        or truth(sample.question.query, sample.edited_objects) == sample.question.answer_text,
        "pair_is_whole": bool(sample.edits) == (sample.edited_image is not None) == (sample.ssim is not None),
        "unseen_only_evaluated": sample.split == "evaluate" or all(e.family != "unseen" for e in sample.edits),
    }


def _effective(row: Mapping[str, Any]) -> float | None:
    if row["clean_correct"] is None or row["edited_correct"] is None:
        return None
    return float(row["clean_correct"] == 1 and row["edited_correct"] == 0)


def _agrees(sample: Sample, row: Mapping[str, Any], prefix: str) -> bool:
    """Whether the record says what its row says. The row's file names lack the prefix."""
    files = [f"{prefix}{name}" for name in (row["file_name"], row["edited_file_name"]) if name is not None]
    scene, question = sample.scene, sample.question
    said = {
        **{name: getattr(sample, name) for name in ("sample_id", "split", "ssim", "clean_correct", "edited_correct")},
        **{name: getattr(scene, name) for name in ("source_id", "source_hash", "scene_id")},
        "kind": question.query.kind,
        "question": question.text,
        "answer": question.answer,
        "options": list(question.options),
    }
    return all(row[name] == value for name, value in said.items()) and images_of(sample) == files


def _boxes_inside(sample: Sample) -> bool:
    boxes: list[Box] = [thing.box for thing in (*sample.scene.objects, *sample.edited_objects)]
    boxes += [*sample.question.protected, *(edit.region for edit in sample.edits)]
    return all(b.right <= sample.scene.width + 0.5 and b.bottom <= sample.scene.height + 0.5 for b in boxes)


def _overlap(sample: Sample) -> float:
    """Square pixels of protected boxes that edits may change."""
    return sum(edit.region.overlap(box) for edit in sample.edits for box in sample.question.protected)
