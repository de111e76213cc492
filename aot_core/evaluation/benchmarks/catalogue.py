"""Finding a benchmark of the registry in a folder."""

from pathlib import Path

from aot_core.contracts.benchmark_registry import BENCHMARKS, Benchmark


class BenchmarkError(ValueError):
    """A benchmark that is not there, or a file that is not in its format. The message names the row and the fix."""


def find(name: str, folder: Path) -> tuple[Benchmark, Path]:
    """A benchmark and its file or folder. Raises BenchmarkError for an unknown name or a missing file."""
    known = BENCHMARKS.get(name)
    if known is None:
        raise BenchmarkError(f"benchmark {name!r} is not known; give one of {', '.join(BENCHMARKS)}")
    for candidate in known.files:
        if (folder / candidate).exists():
            return known, folder / candidate
    raise BenchmarkError(f"{folder} holds no {' or '.join(known.files)}; put the published file there, as it is")
