"""A series as a page: is the champion getting better, against what, at what cost. Needs nothing beside it."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from jinja2 import Environment, PackageLoader, StrictUndefined

from aot_core.contracts.evaluate import CLEAN, REGRESSION_SUITE
from aot_core.contracts.series import EditionEnd
from aot_core.contracts.terminal import when
from aot_core.evaluation.charts import Line, trend_lines
from aot_core.evaluation.web_pictures import chart_uri
from aot_core.series.book import Edition


@dataclass(frozen=True)
class TrendRow:
    """An edition. Shares in percent, None where nothing was measured."""

    number: int
    begun_from: str
    ended: str
    figures: dict[str, float | None]
    """exam clean, exam worst, clean, worst, suite."""
    hours: float
    stages: int
    promoted: bool
    outcome: str


EXAM_CLEAN, EXAM_WORST = "fixed exam, clean", "fixed exam, worst case"
OWN_CLEAN, OWN_WORST, SUITE = "clean", "worst case", "regression suite"


def edition_figures(end: EditionEnd) -> dict[str, float | None]:
    """The figures of an edition by the names that the page and MLflow's run use, in percent."""
    attacks = [share for name, share in end.exam.items() if name != CLEAN]
    shares = {
        EXAM_CLEAN: end.exam.get(CLEAN),
        EXAM_WORST: min(attacks, default=None),
        OWN_CLEAN: end.figures.get(f"strict/{CLEAN}"),
        OWN_WORST: end.figures.get("worst"),
        SUITE: end.figures.get(f"strict/{REGRESSION_SUITE}"),
    }
    return {name: None if share is None else 100 * share for name, share in shares.items()}


def trend_rows(editions: Sequence[Edition]) -> list[TrendRow]:
    """The editions, the earliest first."""
    rows: list[TrendRow] = []
    for edition in editions:
        plan, end = edition.plan, edition.end
        begun_from = plan.lineage[0] if plan.lineage else ""
        if end is None:
            rows.append(TrendRow(plan.number, begun_from, "", {}, 0.0, 0, False, "not finished"))
            continue
        told = "; ".join(part for part in (end.outcome, end.over_budget) if part)
        rows.append(
            TrendRow(
                plan.number, begun_from, when(end.ended_at), edition_figures(end), end.seconds / 3600, end.stages,
                end.outcome.startswith("promoted"), f"version {end.version}: {told}",
            )
        )  # fmt: skip
    return rows


def verdict(rows: Sequence[TrendRow]) -> str:
    """The answer in a sentence: the champion's figure on the fixed exam now, against the first one's."""
    led = [row for row in rows if row.promoted and row.figures.get(EXAM_WORST) is not None]
    if not led:
        return "No edition has been promoted yet."
    now = led[-1].figures[EXAM_WORST] or 0.0
    if len(led) == 1:
        return f"One champion so far (edition {led[0].number}): {now:.1f} % in the fixed exam's worst case."
    points = now - (led[0].figures[EXAM_WORST] or 0.0)
    return (
        f"The champion of edition {led[-1].number} has {now:.1f} % in the fixed exam's worst case, {points:+.1f} "
        f"points against the first champion (edition {led[0].number})."
    )


def trend_page(series: str, editions: Sequence[Edition]) -> str:
    """The page: a verdict, plots for a light and a dark ground, a table."""
    rows = trend_rows(editions)
    done = [row for row in rows if row.figures]
    charts: list[tuple[str, str, str]] = []
    if done:
        panels = (
            ("The fixed exam: the same questions and noise in every edition", (EXAM_CLEAN, EXAM_WORST)),
            ("Each edition's own exam: new Attackers, new scenes", (OWN_CLEAN, OWN_WORST, SUITE)),
        )
        for title, names in panels:
            lines = [Line(name, [(row.number, row.figures[name], row.promoted) for row in done]) for name in names]
            light, dark = (chart_uri(partial(trend_lines, lines, "strict accuracy, %")(on)) for on in (False, True))
            charts.append((title, light, dark))
        hours = [Line("hours", [(row.number, row.hours, row.promoted) for row in done])]
        light, dark = (chart_uri(trend_lines(hours, "hours of stages", on)) for on in (False, True))
        charts.append(("What each edition took", light, dark))
    environment = Environment(
        loader=PackageLoader("aot_core.commands", ""), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    names = (EXAM_CLEAN, EXAM_WORST, OWN_CLEAN, OWN_WORST, SUITE)
    return environment.get_template("trend.html.j2").render(
        series=series, rows=rows, charts=charts, names=names, verdict=verdict(rows)
    )


def trend_markdown(series: str, editions: Sequence[Edition]) -> str:
    """The same without plots, for Prefect's and MLflow's pages."""
    rows = trend_rows(editions)
    names = (EXAM_CLEAN, EXAM_WORST, OWN_CLEAN, OWN_WORST, SUITE)
    lines = [f"# Series {series}", "", verdict(rows), "", f"| edition | from | {' | '.join(names)} | hours | outcome |"]
    lines.append("|---|---|" + "---:|" * (len(names) + 1) + "---|")
    for row in rows:
        shares = ("" if row.figures.get(name) is None else f"{row.figures[name]:.1f}" for name in names)
        outcome = row.outcome.replace("|", "/")
        lines.append(f"| {row.number} | {row.begun_from} | {' | '.join(shares)} | {row.hours:.2f} | {outcome} |")
    return "\n".join(lines) + "\n"
