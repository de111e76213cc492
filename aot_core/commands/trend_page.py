"""A series as a page: is the champion getting better, against what, at what cost. Needs nothing beside it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from jinja2 import Environment, PackageLoader, StrictUndefined

from aot_core.commands.trend_figures import (
    EXAM_CLEAN,
    EXAM_WORST,
    FLIPS,
    NAMES,
    OWN_ATTACKERS,
    OWN_CLEAN,
    OWN_WORST,
    POOL,
    SUITE,
    edition_figures,
)
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
    rolled_back: str
    """When, by whom and why its version was taken from the lead; empty where it was not."""

    @property
    def leading(self) -> bool:
        """Whether it was promoted and not rolled back."""
        return self.promoted and not self.rolled_back

    @property
    def verdict(self) -> str:
        """In a word or two; empty where the edition has not ended."""
        if not self.figures:
            return ""
        return ("promoted, rolled back" if self.rolled_back else "promoted") if self.promoted else "not promoted"


NONE_YET = "No edition has been promoted yet."


def trend_rows(editions: Sequence[Edition], rolled_back: Mapping[int, str]) -> list[TrendRow]:
    """The editions, the earliest first.

    Args:
        rolled_back: by edition (`aot_core.commands.trend_fate`).
    """
    rows: list[TrendRow] = []
    for edition in editions:
        plan, end = edition.plan, edition.end
        begun_from = plan.lineage[0] if plan.lineage else ""
        if end is None:
            rows.append(TrendRow(plan.number, begun_from, "", {}, 0.0, 0, False, "not finished", ""))
            continue
        why = end.outcome.removeprefix("not ").removeprefix("promoted").removeprefix(": ")
        told = "; ".join(part for part in (why, end.over_budget) if part)
        rows.append(
            TrendRow(
                plan.number, begun_from, when(end.ended_at), edition_figures(end), end.seconds / 3600, end.stages,
                end.outcome.startswith("promoted"), f"version {end.version}: {told}",
                rolled_back.get(plan.number, ""),
            )
        )  # fmt: skip
    return rows


def verdict(rows: Sequence[TrendRow]) -> str:
    """The answer in a sentence: the champion's figure on the fixed exam now, against the first one's."""
    led = [row for row in rows if row.leading and row.figures.get(EXAM_WORST) is not None]
    if not led:
        return "No edition leads: each was rolled back." if any(row.promoted for row in rows) else NONE_YET
    now = led[-1].figures[EXAM_WORST] or 0.0
    if len(led) == 1:
        return f"One champion so far (edition {led[0].number}): {now:.1f} % in the fixed exam's worst case."
    points = now - (led[0].figures[EXAM_WORST] or 0.0)
    return (
        f"The champion of edition {led[-1].number} has {now:.1f} % in the fixed exam's worst case, {points:+.1f} "
        f"points against the first champion (edition {led[0].number})."
    )


def trend_page(series: str, editions: Sequence[Edition], rolled_back: Mapping[int, str]) -> str:
    """The page: a verdict, plots for a light and a dark ground, a table."""
    rows = trend_rows(editions, rolled_back)
    done = [row for row in rows if row.figures]
    charts: list[tuple[str, str, str]] = []
    if done:
        panels = (
            ("The fixed exam: the same questions and noise in every edition", (EXAM_CLEAN, EXAM_WORST)),
            ("Each edition's own exam: new Attackers, new scenes", (OWN_CLEAN, OWN_WORST, SUITE)),
            ("Under Attackers: the edition's own, and those of earlier ones", (OWN_ATTACKERS, POOL)),
            ("Flips: right on the clean picture, wrong on the edited one, under the worst attack", (FLIPS,)),
        )
        for title, names in panels:
            if all(row.figures[name] is None for row in done for name in names):
                continue
            lines = [Line(name, [(row.number, row.figures[name], row.promoted) for row in done]) for name in names]
            light, dark = (
                chart_uri(partial(trend_lines, lines, "flips, %" if names == (FLIPS,) else "strict accuracy, %")(on))
                for on in (False, True)
            )
            charts.append((title, light, dark))
        hours = [Line("hours", [(row.number, row.hours, row.promoted) for row in done])]
        light, dark = (chart_uri(trend_lines(hours, "hours of stages", on)) for on in (False, True))
        charts.append(("What each edition took", light, dark))
    environment = Environment(
        loader=PackageLoader("aot_core.commands", ""), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    return environment.get_template("trend.html.j2").render(
        series=series, rows=rows, charts=charts, names=NAMES, verdict=verdict(rows)
    )


def trend_markdown(series: str, editions: Sequence[Edition], rolled_back: Mapping[int, str]) -> str:
    """The same without plots, for Prefect's and MLflow's pages."""
    rows = trend_rows(editions, rolled_back)
    heads = f"| edition | from | {' | '.join(NAMES)} | hours | stages | outcome |"
    lines = [f"# Series {series}", "", verdict(rows), "", heads, "|---|---|" + "---:|" * (len(NAMES) + 2) + "---|"]
    for row in rows:
        shares = ("" if row.figures.get(name) is None else f"{row.figures[name]:.1f}" for name in NAMES)
        told = (f"{row.verdict} {row.outcome}".strip(), row.rolled_back)
        outcome = "; ".join(part for part in told if part).replace("|", "/")
        cost = f"{row.hours:.2f} | {row.stages}"
        lines.append(f"| {row.number} | {row.begun_from} | {' | '.join(shares)} | {cost} | {outcome} |")
    return "\n".join(lines) + "\n"
