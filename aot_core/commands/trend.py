"""The body of `aot trend`: how a series has fared, an edition a line.

Accuracies are strict and in percent. The fixed exam is the first edition's questions, asked with the same noise each
time, so that its columns are comparable; all others are of each edition's own exam. Cost and outcome stand in a table
of their own: both fit into 80 columns.
"""

import json
from pathlib import Path

from aot_core.commands.trend_fate import rollbacks
from aot_core.commands.trend_figures import edition_figures
from aot_core.contracts.terminal import console, table, when
from aot_core.series.book import Edition, SeriesBook, series_in
from aot_core.store.protocol import Store


def print_trend(store: Store, series: str | None, *, as_json: bool) -> None:
    """Print a series' editions.

    Args:
        series: its name; None where the store holds one alone.

    Raises ValueError where there is no such series, or several and none is named.
    """
    name = _named(store, series)
    editions = SeriesBook(store, name).editions()
    back = rollbacks(store, editions)
    if as_json:
        lines = [
            {
                "plan": edition.plan.model_dump(mode="json"),
                "end": edition.end and edition.end.model_dump(mode="json"),
                "rolled_back": back.get(edition.plan.number, ""),
            }
            for edition in editions
        ]
        print(json.dumps({"series": name, "editions": lines}, indent=1))
        return
    figures = (
        "exam\nclean", "exam\nworst", "clean", "worst", "own\nAttackers", "pool", "suite", "flips"
    )  # fmt: skip
    exam = table(f"series {name}: strict accuracy in %", "no", *figures, right=("no", *figures))
    ends = table(
        "what each took, and came to", "no", "from", "hours", "stages", "outcome", right=("no", "hours", "stages")
    )
    for edition in editions:
        number = str(edition.plan.number)
        exam.add_row(number, *_shares(edition))
        ends.add_row(number, *_end(edition, back.get(edition.plan.number, "")))
    printed = console()
    printed.print(exam)
    printed.print(ends)


def write_trend(store: Store, series: str | None, path: Path) -> Path:
    """Write the series' page to a file; returns the path. Raises ValueError as `print_trend`, OSError."""
    from aot_core.commands.trend_page import trend_page  # draws, and so imports slowly

    name = _named(store, series)
    editions = SeriesBook(store, name).editions()
    path.write_text(trend_page(name, editions, rollbacks(store, editions)), encoding="utf-8")
    return path


def _named(store: Store, series: str | None) -> str:
    known = series_in(store)
    if series is None and len(known) == 1:
        return next(iter(known))
    if series not in known:
        if not known:
            raise ValueError("this store holds no series yet; `aot run` of a config with [series] starts one")
        listed = ", ".join(sorted(known))
        asked = f"there is no series {series!r}" if series else "name a series"
        raise ValueError(f"{asked}; this store holds {listed}")
    return series


def _shares(edition: Edition) -> list[str]:
    if edition.end is None:
        return []
    return ["" if share is None else f"{share:.1f}" for share in edition_figures(edition.end).values()]


def _end(edition: Edition, rolled_back: str) -> tuple[str, ...]:
    plan, end = edition.plan, edition.end
    begun = plan.lineage[0] if plan.lineage else ""
    if end is None:
        return (begun, "", "", f"unfinished since {when(edition.planned_at)}")
    # The gate's first reason; `--json`, the ledger and the decision's page have all of them.
    told = (f"v{end.version} {end.outcome.partition(';')[0]}", end.over_budget, rolled_back)
    return (begun, f"{end.seconds / 3600:.2f}", str(end.stages), "; ".join(part for part in told if part))
