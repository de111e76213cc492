"""Putting a benchmark's questions to an engine: questions in, answered items and figures out."""

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from aot_core.contracts.benchmark_registry import BENCHMARKS
from aot_core.contracts.benchmarks import BenchmarkSettings
from aot_core.contracts.promotion import BENCHMARK_PREFIX
from aot_core.contracts.protocols import is_cut_off
from aot_core.evaluation.benchmarks.answers import parse_choice, parse_yes_no
from aot_core.evaluation.benchmarks.items import BenchmarkItem
from aot_core.evaluation.benchmarks.readers import read_benchmark
from aot_core.evaluation.benchmarks.scoring import cycle_group, score
from aot_core.evaluation.engines.protocol import Ask, Engine, Journal, ask_all
from aot_core.evaluation.items import Item


class AskedBenchmark(NamedTuple):
    """A benchmark, asked."""

    name: str
    questions: list[BenchmarkItem]
    items: list[Item]
    """Its questions with their answers, in condition `bench/NAME`."""
    figures: dict[str, float]
    """By the benchmark's own rule."""


def ask_benchmarks(
    settings: BenchmarkSettings,
    folder: Path,
    cache: Path,
    engine: Engine,
    journal: Journal,
    samples: int,
    seed: int,
) -> Iterator[AskedBenchmark]:
    """Ask the benchmarks that the settings name, one after the other.

    Args:
        folder: holds the published files.
        cache: where pictures are unpacked to.
        samples: how often each question is asked.
        seed: of the choice of questions, where the settings limit them.

    Raises BenchmarkError, DataError, EngineError.
    """
    for name in settings.names:
        questions = choose_questions(read_benchmark(name, folder, cache), settings.limit, seed)
        yield AskedBenchmark(name, questions, *run_benchmark(questions, engine, samples, journal))


def choose_questions(items: Sequence[BenchmarkItem], limit: int | None, seed: int) -> list[BenchmarkItem]:
    """At most `limit` questions, in the file's order; a question's cycles (`Benchmark.cycles`) stay together."""
    if limit is None or len(items) <= limit:
        return list(items)
    cycles = BENCHMARKS[items[0].benchmark].cycles
    groups: dict[str, list[BenchmarkItem]] = {}
    for item in items:
        groups.setdefault(cycle_group(item) if cycles else item.key, []).append(item)
    drawn = sorted(groups, key=lambda name: hashlib.sha256(f"{seed}:{name}".encode()).digest())
    kept: set[str] = set()
    for name in drawn:
        if len(kept) + len(groups[name]) > limit:
            break
        kept |= {item.key for item in groups[name]}
    return [item for item in items if item.key in kept]


def run_benchmark(
    items: Sequence[BenchmarkItem], engine: Engine, samples: int, journal: Journal
) -> tuple[list[Item], dict[str, float]]:
    """Ask every question of one benchmark `samples` times.

    Returns the answered items (condition `bench/NAME`; their letters are "Yes" and "No" where that is asked) and the
    figures of the benchmark's own rule; of the `unreadable` answers, `cut_off` is the share of all that the limit on
    new tokens cut off.
    """
    asks = [Ask(item.key, item.prompt, item.open, samples) for item in items]
    said = ask_all(engine, asks, journal)
    answers = {item.key: [_parse(item, text) for text in said[item.key]] for item in items}
    answered = [
        Item(
            condition=f"{BENCHMARK_PREFIX}{item.benchmark}",
            item_id=item.key,
            sample_id=item.index,
            kind=item.category or "all",
            answer=item.answer,
            letters=tuple(answers[item.key]),
            cut_off=sum(map(is_cut_off, said[item.key])),
        )
        for item in items
    ]
    cut_off = sum(item.cut_off for item in answered) / sum(len(item.letters) for item in answered)
    return answered, score(items, answers) | {"cut_off": cut_off}


def _parse(item: BenchmarkItem, text: str) -> str | None:
    return parse_choice(text, item.options) if item.options else parse_yes_no(text)
