"""What the guard looks at: a row a sample, everything that spans columns, files or rows computed into plain columns.

    tables --a row group a worker--> check_rows --joined--> checks_frame (looks across rows) ----> the guard

Row by row nothing is believed: a record that cannot be read, or that says something else than its row, is a finding and
no crash. What looks across rows (splits, near-duplicates, letters) works on one slim frame: some hundred bytes a row.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

import pandas as pd
import pyarrow.parquet as pq
from pydantic import ValidationError
from scipy.stats import binomtest

from aot_core.contracts.scene import LETTERS, Box, Sample
from aot_core.data.dataset import file_sha256, images_of, read_manifest, tables_of
from aot_core.data.images import DataError, safe_path
from aot_core.data.likeness import alike_across
from aot_core.data.truth import truth

_T = TypeVar("_T")
_R = TypeVar("_R")
_ROWS_PER_WORKER = 2000
"""A worker process takes a second to start: fewer rows than this each are not worth one."""


def checks_frame(folder: Path, near_duplicate_bits: int | None = None, workers: int = 1) -> pd.DataFrame:
    """A row a sample, and what is checked of it.

    Args:
        near_duplicate_bits: source images of two splits whose hashes differ in so many bits of 192 at most are called
            alike; None looks for equal ones alone (for scenes that are drawn from seeds of their own).
    """
    groups = [
        (folder, path, group) for path in tables_of(folder) for group in range(pq.ParquetFile(path).num_row_groups)
    ]
    total = sum(pq.ParquetFile(path).metadata.num_rows for path in tables_of(folder))
    parts = in_processes(_check_group, groups, min(workers, total // _ROWS_PER_WORKER))
    frame = pd.concat([pd.DataFrame(part) for part in parts], ignore_index=True)
    tables = read_manifest(folder)["tables"]
    sound = {name: file_sha256(folder / name) == sha256 for name, sha256 in tables.items()}
    # A table that the manifest does not name was added, one that differs was changed.
    frame["hashes_hold"] &= frame.pop("table").map(lambda name: sound.get(name, False))
    frame["copies_of_id"] = frame.groupby("sample_id", dropna=False)["sample_id"].transform("size")
    frame["splits_of_source"] = frame.groupby("source_id", dropna=False)["split"].transform("nunique")
    frame["splits_of_pixels"] = frame.groupby("image_sha256", dropna=False)["split"].transform("nunique")
    frame["near_duplicate"] = near_duplicates(frame, near_duplicate_bits)
    frame["letter_p"] = letter_probabilities(frame)
    # What was only compared across rows is not carried further: the frame is what grows with the data set.
    return frame.drop(columns=["source_hash", "image_sha256", "options"])


def _check_group(group: tuple[Path, Path, int]) -> list[dict[str, Any]]:
    folder, path, number = group
    table = path.relative_to(folder).as_posix()
    with pq.ParquetFile(path) as file:
        return [{**check_row(folder, table, row), "table": table} for row in file.read_row_group(number).to_pylist()]


def check_row(folder: Path, table: str, row: dict[str, Any]) -> dict[str, Any]:
    """The checks of one row of a table (its path relative to the data set's folder)."""
    base = PurePosixPath(table).parent
    options, answer = row["options"] or [], row["answer"]
    checks: dict[str, Any] = {
        **{name: row[name] for name in ("sample_id", "split", "source_id", "scene_id", "kind", "question", "answer")},
        **{name: row[name] for name in ("file_name", "source_hash", "image_sha256", "ssim")},
        "options": len(options),
        "answer_is_an_option": answer in list(LETTERS[: len(options)]) and len(set(options)) == len(options),
        "hashes_hold": all(
            _holds(folder, base, row[name], row[sha])
            for name, sha in (("file_name", "image_sha256"), ("edited_file_name", "edited_sha256"))
            if row[name] is not None or name == "file_name"
        ),
        "effective": _effective(row),
    }
    unread = dict.fromkeys(
        ("boxes_inside", "truth_when_clean", "truth_when_edited", "pair_is_whole", "unseen_only_evaluated"), False
    )
    try:
        sample = Sample.model_validate_json(row["record"])
    except (ValidationError, TypeError):
        return {**checks, **unread, "record_agrees": False, "overlap": float("nan")}
    return {
        **checks,
        "record_agrees": _agrees(sample, row, base),
        "boxes_inside": _boxes_inside(sample),
        "overlap": _overlap(sample),
        "truth_when_clean": truth(sample.question.query, sample.scene.objects) == sample.question.answer_text,
        "truth_when_edited": not sample.edits
        or truth(sample.question.query, sample.edited_objects) == sample.question.answer_text,
        "pair_is_whole": bool(sample.edits) == (sample.edited_image is not None) == (sample.ssim is not None),
        "unseen_only_evaluated": sample.split == "evaluate" or all(e.family != "unseen" for e in sample.edits),
    }


def near_duplicates(frame: pd.DataFrame, bits: int | None) -> list[str | None]:
    """For each row, a source image of another split that its own looks like, and how much; None for none."""
    if bits is None:
        return [None] * len(frame)
    splits: dict[str, set[str]] = defaultdict(set)
    sources: dict[str, str] = {}
    for split, source_id, source_hash in zip(frame["split"], frame["source_id"], frame["source_hash"], strict=True):
        if source_hash:
            splits[source_hash].add(split)
            sources[source_hash] = source_id
    # A source in two splits is another finding: here each hash stands in the first of its splits.
    found = alike_across({name: sorted(places) for name, places in splits.items()}, bits)
    told = {name: f"{sources[other]} ({differing} of 192 bits)" for name, (other, differing) in found.items()}
    return [told.get(source_hash) for source_hash in frame["source_hash"]]


def letter_probabilities(frame: pd.DataFrame) -> list[float]:
    """For each row, how probable its letter's share of the right answers is if letters are drawn evenly.

    An exact binomial test for each letter of the questions with as many options, corrected for the number of letters
    (Bonferroni). Counted over questions, not samples: the versions of one question share their letter.
    """
    asked = frame.drop_duplicates(["split", "image_sha256", "question"])
    lowest: dict[int, float] = {}
    for options in sorted({int(n) for n in asked["options"]}):
        counts = asked.loc[asked["options"] == options, "answer"].value_counts().to_dict()
        total = sum(counts.values())
        tests = [binomtest(counts.get(letter, 0), total, 1 / options) for letter in LETTERS[:options]]
        # A letter that is never right stands in no row of its own: all rows of the group carry the lowest.
        lowest[options] = min((min(1.0, options * float(test.pvalue)) for test in tests), default=1.0)
    return [lowest[int(n)] for n in frame["options"]]


def in_processes(work: Callable[[_T], _R], items: Sequence[_T], workers: int) -> Iterable[_R]:
    """`map`, in order, in so many processes; in this one where there are fewer than two."""
    if workers < 2:
        yield from map(work, items)
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        yield from pool.map(work, items)


def _holds(folder: Path, base: PurePosixPath, name: str | None, sha256: str | None) -> bool:
    try:
        path = safe_path(folder, (base / (name or "")).as_posix())
    except DataError:
        return False
    return path.is_file() and file_sha256(path) == sha256


def _effective(row: dict[str, Any]) -> float | None:
    """1 for a pair that fooled the base Defender, 0 for one that did not, None where it was not asked."""
    if row["clean_correct"] is None or row["edited_correct"] is None:
        return None
    return float(row["clean_correct"] == 1 and row["edited_correct"] == 0)


def _agrees(sample: Sample, row: dict[str, Any], base: PurePosixPath) -> bool:
    """Whether the record says what its row says."""
    files = [(base / name).as_posix() for name in (row["file_name"], row["edited_file_name"]) if name is not None]
    said = (sample.sample_id, sample.split, sample.scene.source_id, sample.question.text, sample.question.answer)
    flat = (row["sample_id"], row["split"], row["source_id"], row["question"], row["answer"])
    return said == flat and list(sample.question.options) == row["options"] and images_of(sample) == files


def _boxes_inside(sample: Sample) -> bool:
    boxes: list[Box] = [thing.box for thing in (*sample.scene.objects, *sample.edited_objects)]
    boxes += [*sample.question.protected, *(edit.region for edit in sample.edits)]
    return all(b.right <= sample.scene.width + 0.5 and b.bottom <= sample.scene.height + 0.5 for b in boxes)


def _overlap(sample: Sample) -> float:
    """Square pixels of protected boxes that edits may change."""
    return sum(edit.region.overlap(box) for edit in sample.edits for box in sample.question.protected)
