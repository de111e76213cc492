"""A second opinion on a hub model's benchmarks: lmms-eval's, with its own data, prompts and parsers.

    model, benchmarks -> `python -m lmms_eval` -> its results.json -> its figure of each benchmark, 0..1

Its figures are not ours: it asks once, greedily, in other words. Where the two are points apart, one of the parsers is
wrong: look at the answers. lmms-eval is no dependency of this project, fetches its data from the hub, and changes its
tasks from version to version.
"""

import json
import subprocess
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from aot_core.contracts.benchmark_registry import BENCHMARKS
from aot_core.evaluation.benchmarks.catalogue import BenchmarkError


def second_opinion(
    model: str, names: Sequence[str], output: Path, *, adapter: str = "qwen2_5_vl", limit: int | None = None
) -> dict[str, float]:
    """What lmms-eval makes of a model.

    Args:
        model: a hub name or a folder (`aot export`).
        names: benchmarks of ours.
        output: where lmms-eval writes its results.
        adapter: lmms-eval's name for the kind of model.
        limit: ask only this many questions, the first ones.

    Raises BenchmarkError where lmms-eval is not installed, fails, or leaves a figure out.
    """
    tasks = {name: one.lmms for name, one in BENCHMARKS.items() if one.lmms is not None}
    unknown = [name for name in names if name not in tasks]
    if unknown or not names:
        raise BenchmarkError(f"benchmarks {unknown} are not known to lmms-eval; give some of {', '.join(tasks)}")
    if find_spec("lmms_eval") is None:
        raise BenchmarkError("lmms-eval is not installed here; `pip install lmms-eval` in this environment or another")
    before = set(output.rglob("*_results.json"))
    command = [sys.executable, "-m", "lmms_eval", "--model", adapter, "--model_args", f"pretrained={model}"]
    command += ["--tasks", ",".join(tasks[name][0] for name in names), "--output_path", str(output)]
    command += ["--batch_size", "1", *(["--limit", str(limit)] if limit else [])]
    done = subprocess.run(command, check=False, stdin=subprocess.DEVNULL)
    written = sorted(set(output.rglob("*_results.json")) - before)
    if done.returncode or not written:
        raise BenchmarkError(f"lmms-eval ended with code {done.returncode}; look at its messages above")
    results: dict[str, dict[str, Any]] = json.loads(written[-1].read_text(encoding="utf-8"))["results"]
    return {name: _figure(results, *tasks[name]) for name in names}


def _figure(results: dict[str, dict[str, Any]], task: str, metric: str) -> float:
    """A task's figure, by whichever of its filters; those in percent as shares."""
    for key, value in results.get(task, {}).items():
        # "exact_match,flexible-extract": metric, filter.
        if key.partition(",")[0] == metric and isinstance(value, int | float):
            return value / 100 if value > 1 else float(value)
    held = ", ".join(results.get(task, {})) or "nothing"
    raise BenchmarkError(f"lmms-eval's results hold no {metric} of {task} ({held}); this is another version of it")
