"""What the guard looks at: a row a sample, everything that spans columns, files or rows computed into plain columns.

    tables --a row group a worker--> facts (of the row) + hashes (on disk) --joined--> checks_frame (across rows)

What looks across rows (splits, near-duplicates, letters) works on one slim frame: some hundred bytes a row.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import TypeVar

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from scipy.stats import binomtest

from aot_core.contracts.scene import LETTERS
from aot_core.data.dataset import SCHEMA, file_sha256, read_manifest, tables_of
from aot_core.data.facts import Note, noted_facts, table_facts
from aot_core.worlds.images import DataError, safe_path
from aot_core.worlds.likeness import alike_across

_T = TypeVar("_T")
_R = TypeVar("_R")
_ROWS_PER_WORKER = 2000
"""A worker process takes a second to start: fewer rows than this each are not worth one."""


def checks_frame(
    folder: Path,
    near_duplicate_bits: int | None = None,
    workers: int = 1,
    notes: Mapping[str, Note] | None = None,
) -> pd.DataFrame:
    """A row a sample, and what is checked of it.

    Args:
        near_duplicate_bits: source images of two splits whose hashes differ in at most this many of 192 bits are called
            alike; None looks for equal ones alone (for scenes that are drawn from seeds of their own).
        workers: processes for what no note tells.
        notes: facts that were noted when the rows were made (`facts`). Rows that none fits are examined again.

    Raises DataError for a table that cannot be read or has other columns.
    """
    notes = notes or {}
    groups: list[tuple[Path, int]] = []
    unnoted = -sum(note.rows for note in notes.values())
    for path in tables_of(folder):
        with _opened(path) as file:
            groups += [(path, group) for group in range(file.num_row_groups)]
            unnoted += file.metadata.num_rows
    parts = in_processes(partial(_check_group, folder, notes), groups, min(workers, unnoted // _ROWS_PER_WORKER))
    frame = pd.concat(parts, ignore_index=True)
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


def _check_group(folder: Path, notes: Mapping[str, Note], group: tuple[Path, int]) -> pd.DataFrame:
    path, number = group
    table = path.relative_to(folder)
    base = table.parent.as_posix()
    with _opened(path) as file:
        try:
            rows = file.read_row_group(number, columns=SCHEMA.names, use_threads=False).cast(SCHEMA)
        except (pa.ArrowException, ValueError, OSError) as error:
            raise DataError(
                f"{path} cannot be read as a data set's table ({error}); make the data set again"
            ) from error
    facts = noted_facts(notes, rows, base)
    frame = (table_facts(rows, base) if facts is None else facts).to_pandas()
    frame["hashes_hold"] = images_hold(folder, base, rows)
    frame["table"] = table.as_posix()
    return frame


def _opened(path: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{path} cannot be read ({error}); make the data set again") from error


def images_hold(folder: Path, base: str, rows: pa.Table) -> list[bool]:
    """For each row whether its images stand on disk, inside the folder, as they were written. Each is read once."""
    found: dict[str, str | None] = {}
    directories: dict[str, Path] = {}

    def holds(name: str | None, sha256: str | None) -> bool:
        if name is None:
            return False
        if name not in found:
            found[name] = _sha256_inside(folder, f"{base}/{name}", directories)
        return found[name] is not None and found[name] == sha256

    columns = [rows[name].to_pylist() for name in ("file_name", "image_sha256", "edited_file_name", "edited_sha256")]
    return [
        holds(clean, sha256) and (edited is None or holds(edited, edited_sha256))
        for clean, sha256, edited, edited_sha256 in zip(*columns, strict=True)
    ]


def _sha256_inside(folder: Path, relative: str, directories: dict[str, Path]) -> str | None:
    """The sha256 of a file inside the folder; None where none lies there. `directories` are those already resolved."""
    above, _, name = relative.rpartition("/")
    try:
        if above not in directories:
            directories[above] = safe_path(folder, above) if Path(above) != Path() else folder.resolve()
        path = directories[above] / name
        # A link can lead anywhere: it is followed first, and must end inside.
        path = safe_path(folder, relative) if path.is_symlink() else path
        stands = path.is_file()
    except (DataError, OSError):  # Outside, or no name that a file can have.
        return None
    return file_sha256(path) if stands else None


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
    """`map`, in order, in `workers` processes; in this one for fewer than two."""
    if workers < 2:
        yield from map(work, items)
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        yield from pool.map(work, items)
