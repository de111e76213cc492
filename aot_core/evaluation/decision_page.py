"""A gate's decision as Markdown for Prefect, and as a self-contained HTML page."""

from jinja2 import Environment, PackageLoader, StrictUndefined

from aot_core.contracts.markdown import as_text
from aot_core.contracts.promotion import Decision, GateTest
from aot_core.evaluation.smoke_size import smoke_size


def decision_page(decision: Decision) -> str:
    """The decision as one HTML page."""
    environment = Environment(
        loader=PackageLoader("aot_core.evaluation", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("decision.html.j2").render(
        decision=decision,
        row=row,
        sides=_sides(decision),
        figures=headline_figures(decision),
        smoke_size=smoke_size(decision),
    )


def _sides(decision: Decision) -> list[str]:
    return [side for side in ("champion", "base", "challenger") if f"{side}/worst" in decision.figures]


def headline_figures(decision: Decision) -> list[tuple[str, list[float | None]]]:
    """(figure, a share a side): worst case, then strict accuracy by condition; the worst case first."""
    sides, figures = _sides(decision), decision.figures
    names = list(dict.fromkeys(name.partition("/")[2] for name in figures if "/strict/" in name))
    shown = [("worst case", "worst"), *((name.removeprefix("strict/").replace("_", " "), name) for name in names)]
    return [(label, [figures.get(f"{side}/{name}") for side in sides]) for label, name in shown if sides]


def decision_markdown(decision: Decision, *, narrow: bool = False) -> str:
    """The decision as Markdown.

    Args:
        narrow: a table of four columns instead of eight, for a place that cuts wide ones.
    """
    verdict = "may lead" if decision.promote else "may not lead"
    lines = [
        f"# {decision.model} version {decision.challenger} {verdict}",
        "",
        as_text(decision.reason),
        "",
        *([f"**{as_text(warning)}**", ""] if (warning := smoke_size(decision)) else []),
        f"Against {decision.rival}; challenger number {decision.attempt} of this champion, level {decision.alpha:.3g}.",
    ]
    if decision.tests and narrow:
        lines += ["", "| test | | difference | lower bound |", "|---|---|---:|---:|"]
        for test in decision.tests:
            name, _, _, _, difference, _, _, outcome = (as_text(cell) for cell in row(test))
            bound = "" if test.low is None else f"{100 * test.low:+.1f}"
            lines.append(f"| {name} | {outcome} | {difference} | {bound} |")
    elif decision.tests:
        lines += [
            "",
            "| test | n | champion | challenger | difference | lower bound | p | |",
            "|---|" + "---:|" * 6 + "---|",
        ]
        lines += [f"| {' | '.join(as_text(cell) for cell in row(test))} |" for test in decision.tests]
    if decision.stops:
        lines += [
            "",
            *(
                f"- {'**stops**' if s.stopped else 'fine'}: {as_text(s.name)}: {as_text(s.told)}"
                for s in decision.stops
            ),
        ]
    return "\n".join(lines) + "\n"


def figures_markdown(decision: Decision) -> list[str]:
    """The figures of both sides as lines of a Markdown table, in percent; nothing where there are none."""
    sides, figures = _sides(decision), headline_figures(decision)
    if not figures:
        return []
    lines = ["", f"| strict accuracy, % | {' | '.join(sides)} |", "|---|" + "---:|" * len(sides)]
    return lines + [f"| {as_text(name)} | {' | '.join(_percent(v) for v in values)} |" for name, values in figures]


def row(test: GateTest) -> list[str]:
    """A test's cells: name, n, champion, challenger and difference in percent, bound, p, outcome."""
    p_value = test.p_adjusted if test.p_adjusted is not None else test.p_value
    return [
        test.name,
        str(test.n),
        _percent(test.champion),
        _percent(test.challenger),
        _percent(test.difference, "+"),
        "" if test.low is None else f"{100 * test.low:+.1f} (> {100 * (test.margin or 0):g})",
        "" if p_value is None else f"{p_value:.2g}",
        "passed" if test.passed else "failed",
    ]


def _percent(value: float | None, sign: str = "") -> str:
    return "" if value is None else f"{100 * value:{sign}.1f}"
