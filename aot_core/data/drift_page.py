"""The report of a comparison of two data sets: `drift.html`, self-contained, and a picture of the columns."""

import io
from base64 import b64encode
from collections.abc import Sequence
from textwrap import shorten

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from aot_core.data.drift import Drift

_REFERENCE, _NOW = "#8a9099", "#0072b2"
_MOST = 18
"""Values of a column that are drawn; the rarest others are left to one bar."""
_ACROSS = 2
_DPI = 110


def drift_page(drifts: Sequence[Drift], picture: bytes) -> str:
    """The page. Equal comparisons give equal text."""
    templates = Environment(
        loader=PackageLoader("aot_core.data", ""), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    drifted = sum(drift.drifted for drift in drifts)
    return templates.get_template("drift.html.j2").render(
        drifts=drifts, drifted=drifted, picture=b64encode(picture).decode()
    )


def drift_picture(drifts: Sequence[Drift]) -> bytes:
    """The distributions of every column, reference against now, as PNG."""
    shown = [_drawn(drift) for drift in drifts]
    rows = [shown[first : first + _ACROSS] for first in range(0, len(shown), _ACROSS)]
    heights = [0.8 + 0.24 * max(len(labels) for labels, _, _ in row) for row in rows]
    figure = Figure(figsize=(6.2 * _ACROSS, sum(heights)), layout="constrained")
    grid = figure.subplots(len(rows), _ACROSS, squeeze=False, height_ratios=heights)
    for axes in grid.flat[len(drifts) :]:
        axes.set_axis_off()
    for drift, drawn, axes in zip(drifts, shown, grid.flat, strict=False):
        _bars(axes, drift, *drawn)
    figure.legend(*grid.flat[0].get_legend_handles_labels(), loc="outside upper right", ncols=2, frameon=False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=_DPI, metadata={"Software": None})
    return buffer.getvalue()


def _drawn(drift: Drift) -> tuple[list[str], list[float], list[float]]:
    """The labels, and the shares of the reference and of now, in the order to draw them in."""
    names = list(drift.reference)
    if len(names) > _MOST:
        # The most frequent on either side, where they stood.
        kept = set(sorted(names, key=lambda name: -max(drift.reference[name], drift.now[name]))[: _MOST - 1])
        names = [name for name in names if name in kept]
    rest = len(drift.reference) - len(names)
    columns = [[shares[name] for name in names] for shares in (drift.reference, drift.now)]
    labels = [shorten(name, 34, placeholder="...") for name in names]
    if rest:
        labels.append(f"{rest} others")
        columns = [[*shares, max(0.0, 1 - sum(shares))] for shares in columns]
    return labels, columns[0], columns[1]


def _bars(axes: Axes, drift: Drift, labels: list[str], reference: list[float], now: list[float]) -> None:
    places = np.arange(len(labels))
    axes.barh(places - 0.2, np.multiply(reference, 100), height=0.38, color=_REFERENCE, label="reference")
    axes.barh(places + 0.2, np.multiply(now, 100), height=0.38, color=_NOW, label="now")
    axes.set_yticks(places, labels, fontsize=8)
    axes.invert_yaxis()
    axes.tick_params(axis="x", labelsize=8)
    axes.set_xlabel("% of the values", fontsize=8)
    axes.grid(axis="x", color="#d9dce1", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    verdict = "drifted" if drift.drifted else "holds"
    title = f"{drift.title}: {drift.divergence:.3f} nats, limit {drift.limit:.3f}, {verdict}"
    axes.set_title(title, fontsize=10, loc="left", color="#c0262d" if drift.drifted else "#1c1e22")
