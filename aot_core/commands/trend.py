"""The body of `aot trend`: how a series has fared, an edition a line.

Accuracies are strict and in percent. The fixed exam is the first edition's questions, asked with the same noise each
time, so that its column is comparable; worst case and suite are each edition's own.
"""

import json
from pathlib import Path

from aot_core.contracts.evaluate import CLEAN, REGRESSION_SUITE
from aot_core.contracts.terminal import console, table
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
    if as_json:
        lines = [
            {"plan": edition.plan.model_dump(mode="json"), "end": edition.end and edition.end.model_dump(mode="json")}
            for edition in editions
        ]
        print(json.dumps({"series": name, "editions": lines}, indent=1))
        return
    figures = ("clean", "worst", "suite", "exam\nclean", "exam\nworst", "hours")
    told = table(f"series {name}: strict accuracy in %", "no", "from", *figures, "outcome", right=("no", *figures))
    for edition in editions:
        told.add_row(*_cells(edition))
    console().print(told)


def write_trend(store: Store, series: str | None, path: Path) -> Path:
    """Write the series' page to a file; returns the path. Raises ValueError as `print_trend`, OSError."""
    from aot_core.commands.trend_page import trend_page  # draws, and so imports slowly

    name = _named(store, series)
    path.write_text(trend_page(name, SeriesBook(store, name).editions()), encoding="utf-8")
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


def _cells(edition: Edition) -> tuple[str, ...]:
    plan, end = edition.plan, edition.end
    begun = (str(plan.number), plan.lineage[0] if plan.lineage else "")
    if end is None:
        return (*begun, "", "", "", "", "", "", f"unfinished since {edition.planned_at}")
    exam_attacks = [share for name, share in end.exam.items() if name != CLEAN]
    figures = (
        end.figures.get(f"strict/{CLEAN}"),
        end.figures.get("worst"),
        end.figures.get(f"strict/{REGRESSION_SUITE}"),
        end.exam.get(CLEAN),
        min(exam_attacks, default=None),
    )
    shares = tuple("" if share is None else f"{100 * share:.1f}" for share in figures)
    # The gate's first reason; `--json`, the ledger and the decision's page have all of them.
    told = "; ".join(part for part in (f"v{end.version} {end.outcome.partition(';')[0]}", end.over_budget) if part)
    return (*begun, *shares, f"{end.seconds / 3600:.2f}", told)
