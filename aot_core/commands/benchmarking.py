"""The bodies of `aot bench verify` and `aot bench run`: public benchmarks outside a campaign."""

import json
from pathlib import Path
from tempfile import TemporaryDirectory

from aot_core.contracts.base import sha256_of
from aot_core.contracts.benchmarks import BenchmarkSettings
from aot_core.contracts.terminal import console, table
from aot_core.evaluation.benchmarks.catalogue import BenchmarkError
from aot_core.evaluation.benchmarks.verify import verify


def print_verified(folder: Path, names: list[str], *, pictures: bool) -> int:
    """A table of what a folder holds; the exit code is 1 where a file is broken.

    Raises BenchmarkError for an unknown name, and for what is no folder.
    """
    if not folder.is_dir():
        raise BenchmarkError(f"{str(folder)!r} is not a folder; give the one that holds the published files")
    printed = table(f"benchmarks in {folder}", "benchmark", "state", "questions", "", right=("questions",))
    found = verify(folder, names, pictures=pictures)
    colours = {"published": "green", "readable": "yellow", "absent": "dim", "broken": "red"}
    for one in found:
        printed.add_row(one.name, f"[{colours[one.state]}]{one.state}[/]", str(one.questions or ""), one.told)
    console().print(printed)
    return int(any(one.state == "broken" for one in found))


def run(
    folder: Path,
    settings: BenchmarkSettings,
    defender: str | None,
    output: Path,
    *,
    samples: int,
    temperature: float,
    seed: int,
    device: str,
    dtype: str,
) -> dict[str, dict[str, float]]:
    """Ask benchmarks, and print and keep what came of it; started again with the same settings it goes on.

    Args:
        defender: a shipped model's name, a folder or a hub name; None where the settings name an endpoint.
        output: `RUN/answers.jsonl`, `RUN/items.parquet` and `RUN/figures.json` are written below it.

    Raises BenchmarkError, EngineError.
    """
    from aot_core.defender.checkpoints import load_defender
    from aot_core.engine.identity import pin_model
    from aot_core.engine.runner import resolve_device
    from aot_core.evaluation.benchmarks.asking import ask_benchmarks
    from aot_core.evaluation.engines.opening import open_engine
    from aot_core.evaluation.engines.protocol import Journal
    from aot_core.evaluation.items import write_items

    loaded = None
    if settings.endpoint is None:
        assert defender is not None, "the command line asks for one of the two"
        loaded = load_defender(None, defender, resolve_device(device), dtype)  # pyright: ignore[reportArgumentType]
    pinned = pin_model(defender) if defender else None
    who = (pinned.sha256 or pinned.name) if pinned else ""
    about = [who, settings.model_dump(mode="json"), temperature, seed, samples]
    place = output / sha256_of(about)[:12]
    place.mkdir(parents=True, exist_ok=True)
    figures: dict[str, dict[str, float]] = {}
    items = []
    with (
        TemporaryDirectory(prefix="aot-bench-") as scratch,
        open_engine(settings, loaded, who, temperature, seed, Path(scratch)) as engine,
        Journal(place / "answers.jsonl", engine.identity) as journal,
    ):
        for done in ask_benchmarks(settings, folder, place / "pictures", engine, journal, samples, seed):
            figures[done.name] = done.figures
            items += done.items
    write_items(place / "items.parquet", items)
    (place / "figures.json").write_text(json.dumps(figures, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    _print_figures(figures, place)
    return figures


def print_second_opinion(
    model: str,
    names: list[str],
    output: Path,
    figures: Path | None,
    *,
    adapter: str,
    arguments: list[str],
    data: Path | None,
    limit: int | None,
) -> None:
    """lmms-eval's figures of a hub model, beside ours where they are given. Raises BenchmarkError.

    Args:
        figures: `figures.json` of `aot bench run`.
    """
    from aot_core.evaluation.benchmarks.second_opinion import second_opinion

    theirs = second_opinion(model, names, output, adapter=adapter, arguments=arguments, data=data, limit=limit)
    ours: dict[str, dict[str, float]] = json.loads(figures.read_text(encoding="utf-8")) if figures else {}
    figures_of = ("lmms-eval", "here", "difference")
    printed = table(f"{model}: single-shot accuracy in %", "benchmark", *figures_of, right=figures_of)
    for name, value in theirs.items():
        mine = ours.get(name, {}).get("single/accuracy")
        cells = ("", "") if mine is None else (f"{100 * mine:.1f}", f"{100 * (mine - value):+.1f}")
        printed.add_row(name, f"{100 * value:.1f}", *cells)
    console().print(printed)


def _print_figures(figures: dict[str, dict[str, float]], place: Path) -> None:
    figures_of = ("n", "strict", "single-shot", "no answer", "cut off")
    printed = table(f"accuracy in %; all figures: {place / 'figures.json'}", "benchmark", *figures_of, right=figures_of)
    for name, found in figures.items():
        shares = (found["strict/accuracy"], found["single/accuracy"], found["unreadable"], found["cut_off"])
        printed.add_row(name, f"{found['n']:.0f}", *(f"{100 * share:.1f}" for share in shares))
    console().print(printed)
