"""Reading benchmarks: a published file or folder in, questions out; base64 pictures are unpacked into a cache.

A file is read row by row (the 8K benchmark weighs gigabytes), and a picture is decoded only when its question is asked.
"""

import ast
import base64
import binascii
import csv
import hashlib
import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from aot_core.contracts.benchmark_registry import Benchmark
from aot_core.contracts.functions import import_function
from aot_core.evaluation.benchmarks.catalogue import BenchmarkError, find
from aot_core.evaluation.benchmarks.items import BenchmarkItem
from aot_core.worlds.images import safe_path

_LETTERS = "ABCDEFGHI"
_REFERENCE = 64
"""A shorter value of `image` is the index of the row that holds the picture (VLMEvalKit's habit)."""
_VSTAR_OPTION = re.compile(r"^\s*\(?([A-H])[).]\s*(.+?)\s*$")

Row = Mapping[str, str]
Reader = Callable[[Benchmark, Path, Path], Iterator[BenchmarkItem]]
"""From an entry of the registry, its file or folder, and a folder for unpacked pictures. Raises BenchmarkError."""


def read_benchmark(name: str, folder: Path, cache: Path) -> list[BenchmarkItem]:
    """All questions of a benchmark, in the file's order.

    Args:
        folder: holds the published files (`contracts.benchmark_registry`).
        cache: where pictures are unpacked to; may be deleted afterwards.

    Raises BenchmarkError where the file is missing or a row is not in the format, DataError for a path that climbs out.
    """
    benchmark, path = find(name, folder)
    items = list(_reader(benchmark, path)(benchmark, path, cache / name))
    if not items:
        raise BenchmarkError(f"{path} holds no question of split {benchmark.split or 'any'}; is it cut off?")
    keys = [item.key for item in items]
    if len(set(keys)) < len(keys):
        twice = next(item.index for item, key in zip(items, keys, strict=True) if keys.count(key) > 1)
        raise BenchmarkError(f"{path}: the question of index {twice} appears twice; copy the file again")
    return items


def _reader(benchmark: Benchmark, path: Path) -> Reader:
    field = "folder_reader" if path.is_dir() else "reader"
    name: str = getattr(benchmark, field)
    if not name:
        raise BenchmarkError(f"{path} is a folder, and {benchmark.name} is published as a file; put that file there")
    return READERS.get(name) or import_function(name, f"benchmark {benchmark.name}: {field}")


def rows(benchmark: Benchmark, path: Path) -> Iterator[Row]:
    """The rows of a tab-separated file. Raises BenchmarkError where a needed column is missing."""
    csv.field_size_limit(sys.maxsize)
    with path.open(newline="", encoding="utf-8") as stream:
        reader = csv.DictReader(stream, delimiter="\t")
        needed = ("index", "question", "answer", *benchmark.columns)
        missing = [column for column in needed if column not in (reader.fieldnames or [])]
        if missing:
            raise BenchmarkError(
                f"{path} has no column {', '.join(missing)}; give the published file of {benchmark.name}"
            )
        if not {"image", "image_path"} & set(reader.fieldnames or []):
            raise BenchmarkError(f"{path} has neither a column image nor image_path; give the published file")
        yield from reader


def read_vlmevalkit(benchmark: Benchmark, path: Path, cache: Path) -> Iterator[BenchmarkItem]:
    """A tab-separated file in VLMEvalKit's format (a `Reader`)."""
    pictures: dict[str, list[tuple[str, str]]] = {}
    for number, row in enumerate(rows(benchmark, path), start=2):
        index = row["index"].strip()
        here = f"{path.name}, line {number} (index {index})"
        if None in row or any(value is None for value in row.values()):
            raise BenchmarkError(f"{here}: the number of columns differs from the header's; is the file truncated?")
        # Also of rows that are not asked: others may refer to their picture.
        found, folder = _pictures(row, path, cache, pictures, here)
        pictures[index] = found
        if benchmark.split and row["split"] != benchmark.split:
            continue
        options = () if benchmark.asks == "yes_no" else _options(row, here)
        yield BenchmarkItem(
            benchmark=benchmark.name,
            index=index,
            question=re.sub(r"<image \d+>", lambda m: f"({m[0][1:-1]})", row["question"].strip()),
            options=options,
            answer=_answer(row["answer"].strip(), benchmark, [letter for letter, _ in options], here),
            folder=folder,
            images=tuple(name for name, _ in found),
            image_sha256=tuple(sha256 for _, sha256 in found),
            category=row.get("category", ""),
            tags={name: row[name] for name in ("l2-category", "cycle_category", "split") if row.get(name)},
        )


def _options(row: Row, here: str) -> tuple[tuple[str, str], ...]:
    options = tuple((letter, row[letter].strip()) for letter in _LETTERS if (row.get(letter) or "").strip())
    if len(options) < 2 or "".join(letter for letter, _ in options) != _LETTERS[: len(options)]:
        raise BenchmarkError(
            f"{here}: its options are {[letter for letter, _ in options]}; expected A, B, ... without gaps"
        )
    return options


def _answer(answer: str, benchmark: Benchmark, letters: list[str], here: str) -> str:
    if benchmark.asks == "yes_no":
        if answer.lower() not in ("yes", "no"):
            raise BenchmarkError(f"{here}: answer {answer!r} is neither Yes nor No")
        return answer.capitalize()
    if answer not in letters:
        raise BenchmarkError(f"{here}: answer {answer!r} is not one of its options {', '.join(letters)}")
    return answer


def _pictures(
    row: Row, path: Path, cache: Path, known: dict[str, list[tuple[str, str]]], here: str
) -> tuple[list[tuple[str, str]], Path]:
    """(relative path, sha256 of the bytes) of each picture of a row, and the folder that they lie in."""
    named = _listed(row.get("image_path") or "", here)
    held = row.get("image") or ""
    # Where both stand there, `image` is the copy that goes with the file, and `image_path` its name elsewhere.
    if named and not held:
        files = [(name, safe_path(path.parent, name)) for name in named]
        gone = [name for name, file in files if not file.is_file()]
        if gone:
            raise BenchmarkError(f"{here}: picture {gone[0]!r} is not beside the file; put it there")
        return [(name, hashlib.sha256(file.read_bytes()).hexdigest()) for name, file in files], path.parent
    if 0 < len(held) <= _REFERENCE:
        if held not in known:
            raise BenchmarkError(f"{here}: image {held!r} refers to a row that does not precede it")
        return known[held], cache
    texts = _listed(held, here)
    if not texts:
        raise BenchmarkError(f"{here}: the row has no picture")
    return [_unpack(text, cache, here) for text in texts], cache


def _unpack(text: str, cache: Path, here: str) -> tuple[str, str]:
    try:
        content = base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise BenchmarkError(f"{here}: its image is not base64 ({error}); is the file truncated?") from error
    sha256 = hashlib.sha256(content).hexdigest()
    # Named by contents: nothing of a file's own wording gets into a path.
    relative = f"{sha256[:32]}.img"
    cache.mkdir(parents=True, exist_ok=True)
    if not (cache / relative).is_file():
        (cache / relative).write_bytes(content)
    return relative, sha256


def _listed(value: str, here: str) -> list[str]:
    """One text, or a list of them as Python prints it."""
    value = value.strip()
    if not value.startswith("["):
        return [value] if value else []
    try:
        listed = ast.literal_eval(value)
    except (ValueError, SyntaxError, MemoryError) as error:
        raise BenchmarkError(f"{here}: its list of pictures cannot be read; is the file truncated?") from error
    return [str(one) for one in listed]


def read_vstar(benchmark: Benchmark, folder: Path, cache: Path) -> Iterator[BenchmarkItem]:
    """VStar's folder: `test_questions.jsonl`, pictures beside it (a `Reader`). Options stand in the question's text, a
    line each."""
    del cache  # its pictures are files already
    listing = folder / "test_questions.jsonl"
    if not listing.is_file():
        raise BenchmarkError(f"{folder} holds no test_questions.jsonl; give VStar's folder as it is published")
    for number, line in enumerate(listing.read_text(encoding="utf-8").splitlines(), start=1):
        here = f"{listing.name}, line {number}"
        try:
            row = json.loads(line)
            text, label, image = str(row["text"]), str(row["label"]), str(row["image"])
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise BenchmarkError(f"{here}: not a VStar question ({error!r}); is the file truncated?") from error
        lines = [one for one in text.splitlines() if one.strip()]
        options = tuple((m[1], m[2]) for one in lines if (m := _VSTAR_OPTION.match(one)))
        letters = [letter for letter, _ in options]
        if len(options) < 2 or letters != list(_LETTERS[: len(options)]):
            raise BenchmarkError(
                f"{here}: its options are {letters}; expected (A), (B), ..., each on a line of its own"
            )
        picture = safe_path(folder, image)
        if not picture.is_file():
            raise BenchmarkError(f"{here}: picture {image!r} is not in {folder}")
        yield BenchmarkItem(
            benchmark=benchmark.name,
            index=str(row.get("question_id", number - 1)),
            question=lines[0].strip(),
            options=options,
            answer=_answer(label.strip().strip("()"), benchmark, letters, here),
            folder=folder,
            images=(image,),
            image_sha256=(hashlib.sha256(picture.read_bytes()).hexdigest(),),
            category=str(row.get("category", Path(image).parent.name)),
        )


READERS: Mapping[str, Reader] = {"vlmevalkit": read_vlmevalkit, "vstar": read_vstar}
