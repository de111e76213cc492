"""Are the files in a folder the published ones, and whole? For `aot bench verify`."""

import hashlib
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from aot_core.contracts.benchmark_registry import BENCHMARKS, Benchmark
from aot_core.evaluation.benchmarks.catalogue import BenchmarkError, find
from aot_core.evaluation.benchmarks.readers import read_benchmark
from aot_core.worlds.images import DataError


class Verified(NamedTuple):
    """What was found of one benchmark."""

    name: str
    state: str
    """"published" (its checksum is known), "readable" (it is whole, its checksum is not known), "absent", "broken"."""
    questions: int
    told: str


def verify(folder: Path, names: list[str] | None = None, *, pictures: bool = False) -> list[Verified]:
    """Look at every known benchmark, or at those named.

    Args:
        pictures: also decode every picture, which takes minutes.

    Raises BenchmarkError for an unknown name.
    """
    unknown = [name for name in names or [] if name not in BENCHMARKS]
    if unknown:
        raise BenchmarkError(f"benchmark {unknown[0]!r} is not known; give some of {', '.join(BENCHMARKS)}")
    return [_verify(BENCHMARKS[name], folder, pictures) for name in names or BENCHMARKS]


def _verify(benchmark: Benchmark, folder: Path, pictures: bool) -> Verified:
    try:
        _, path = find(benchmark.name, folder)
    except BenchmarkError as error:
        return Verified(benchmark.name, "absent", 0, str(error))
    try:
        with TemporaryDirectory(prefix="aot-verify-") as cache:
            items = read_benchmark(benchmark.name, folder, Path(cache))
            if pictures:
                for item in items:
                    item.open()
    except (BenchmarkError, DataError, UnicodeDecodeError) as error:
        return Verified(benchmark.name, "broken", 0, str(error))
    known = path.is_file() and _md5(path) in benchmark.md5
    asked = f"{len(items)} questions" + (f" of split {benchmark.split}" if benchmark.split else "")
    if known:
        return Verified(benchmark.name, "published", len(items), f"{asked}; the checksum is the published file's")
    expected = "" if benchmark.split else f" (the published one has {benchmark.questions})"
    why = "a folder has no published checksum" if path.is_dir() else "its checksum is no published file's"
    return Verified(benchmark.name, "readable", len(items), f"{asked}{expected}; {why}")


def _md5(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "md5").hexdigest()
