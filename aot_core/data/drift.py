"""How far a data set has drifted from another one: a distance between distributions, column by column.

    tables, some of the pictures --observe--> column -> values --compare--> Drift of each column, the worst first

The distance is the Kullback-Leibler divergence from the reference, as Great Expectations measures it
(`ExpectColumnKLDivergenceToBeLessThan`): what is continuous is put into fixed bins first, so that its partition is
one of categories. A value that the reference never had would make it infinite; such values share the weight of one
observation more than the reference held, which keeps the distance finite, and large.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from aot_core.data.dataset import iter_samples, load_image
from aot_core.data.guard import GuardBrokenError, great_expectations, raised_in, run_checkpoint
from aot_core.worlds.images import DataError


@dataclass(frozen=True)
class Column:
    """What is compared, and the bins of what is continuous."""

    title: str
    edges: tuple[float, ...] = ()
    """Of its bins; empty for a column of words."""
    unit: str = ""
    factor: float = 1.0
    """From an edge to what people read."""

    def bins(self) -> list[str]:
        """The bins' names, in order; what lies beyond the edges has a bin of its own."""
        ends = [f"{edge * self.factor:.3g}" for edge in self.edges]
        between = [f"{low} to {high}" for low, high in pairwise(ends)]
        names = [f"under {ends[0]}", *between, f"{ends[-1]} and more"]
        return [f"{name} {self.unit}".rstrip() for name in names]

    def binned(self, values: Sequence[float]) -> list[str]:
        """The bin of each value."""
        names = self.bins()
        return [names[int(place)] for place in np.digitize(np.asarray(values, dtype=float), self.edges)]


_GREY = tuple(float(edge) for edge in range(16, 256, 16))
COLUMNS: Mapping[str, Column] = {
    "kind": Column("kinds of question"),
    "class": Column("classes of things"),
    "box": Column("sizes of things", tuple(2.0**-power for power in range(12, 0, -1)), "% of the picture", 100),
    "brightness": Column("brightness of pictures", _GREY, "of 255"),
    "contrast": Column("contrast of pictures", tuple(float(edge) for edge in range(8, 128, 8)), "grey values"),
    "saturation": Column("saturation of pictures", _GREY, "of 255"),
    "pixels": Column("sizes of pictures", tuple(2.0**power for power in range(12, 25)), "thousand pixels", 1e-3),
}
"""Bins double in width where sizes are meant."""


@dataclass
class Observed:
    """The values of a data set's columns, as words and names of bins."""

    values: dict[str, list[str]] = field(default_factory=dict)
    sources: int = 0
    """Source images: what is seen in one scene of a photograph is seen in its other scenes too, so it counts once."""


@dataclass(frozen=True)
class Drift:
    """How far one column has drifted."""

    column: str
    title: str
    divergence: float
    """Nats."""
    chance: float
    """Nats that two draws of these sizes from one distribution differ by, on the average."""
    limit: float
    """Nats, chance included."""
    drifted: bool
    reference: dict[str, float]
    """Value to its share, in the order to show them in."""
    now: dict[str, float]
    unseen: tuple[str, ...]
    """Values that the reference never had, the most frequent first."""


def observe(folder: Path, pictures: int, seed: int = 0) -> Observed:
    """The columns of a data set.

    Args:
        pictures: clean pictures that are opened, at most; drawn evenly from all by the seed.

    Raises DataError where the folder holds no data set, or one without things.
    """
    found: dict[str, list[Any]] = {name: [] for name in COLUMNS}
    sources: set[str] = set()
    images: dict[str, None] = {}
    asked: set[tuple[str, str]] = set()
    for sample in iter_samples(folder):
        scene = sample.scene
        sources.add(scene.source_id)
        # The versions of an evaluated question share their clean scene.
        if (sample.image, sample.question.text) not in asked:
            asked.add((sample.image, sample.question.text))
            found["kind"].append(sample.question.query.kind)
        if sample.image not in images:
            images[sample.image] = None
            found["class"] += [thing.attributes.get("name", thing.name) for thing in scene.objects]
            found["box"] += [thing.box.area / (scene.width * scene.height) for thing in scene.objects]
            found["pixels"].append(scene.width * scene.height)
    names = list(images)
    chosen = np.random.default_rng(seed).permutation(len(names))[:pictures]
    for place in sorted(int(n) for n in chosen):
        for name, value in _statistics(load_image(folder, names[place])).items():
            found[name].append(value)
    for name, column in COLUMNS.items():
        if not found[name]:
            raise DataError(f"{folder} holds no {column.title} to compare; give a data set that prepare_data wrote")
    values = {name: column.binned(found[name]) if column.edges else found[name] for name, column in COLUMNS.items()}
    return Observed(values, len(sources))


def _statistics(image: Image.Image) -> dict[str, float]:
    """Brightness and contrast: mean and standard deviation of the grey values; saturation: its mean, all of 255."""
    grey = np.asarray(image.convert("L"), dtype=np.float64)
    saturation = np.asarray(image.convert("HSV"), dtype=np.float64)[..., 1]
    return {"brightness": grey.mean(), "contrast": grey.std(), "saturation": saturation.mean()}


def compare(now: Observed, reference: Observed, limit: float) -> list[Drift]:
    """Each column's drift, the worst first.

    Args:
        limit: nats above what chance brings from which on a column has drifted.

    Raises GuardBrokenError where Great Expectations could not look.
    """
    limits = {name: limit + _chance(name, now, reference) for name in COLUMNS}
    expectations = [
        great_expectations().expectations.ExpectColumnKLDivergenceToBeLessThan(
            column=name,
            partition_object=_partition(reference.values[name]),
            # To the unseen values together what one more observation would have weighed.
            tail_weight_holdout=1 / (len(reference.values[name]) + 1),
            threshold=limits[name],
        )
        for name in COLUMNS
    ]
    # Columns of unequal length: what is missing below the shorter ones is null, and counts as not there.
    frame = pd.DataFrame({name: pd.Series(values, dtype=object) for name, values in now.values.items()})
    outcome, _ = run_checkpoint(frame, expectations)
    results = [result for run in outcome.run_results.values() for result in run.results]
    raised = [
        f"{result.expectation_config.kwargs['column']}: {told}" for result in results if (told := raised_in(result))
    ]
    if raised:
        raise GuardBrokenError(f"the divergence could not be measured: {'; '.join(raised)}")
    drifts = []
    for result in results:
        name = result.expectation_config.kwargs["column"]
        divergence = result.result["observed_value"]
        assert divergence is not None, "no weight of the partition is 0, so the divergence is finite"
        drifts.append(_drift(name, max(0.0, float(divergence)), not result.success, limits[name], now, reference))
    return sorted(drifts, key=lambda drift: drift.limit - drift.divergence)


def _partition(values: Sequence[str]) -> dict[str, list[Any]]:
    counts = Counter(values)
    return {"values": list(counts), "weights": [count / len(values) for count in counts.values()]}


def _chance(name: str, now: Observed, reference: Observed) -> float:
    """(K - 1) / 2 (1 / n + 1 / m): the mean divergence of two draws of n and m from one distribution of K values.

    Twice the divergence times n is, for large n, distributed as chi-square with K - 1 degrees of freedom (Wilks).
    """
    n, m = (min(len(one.values[name]), one.sources) for one in (now, reference))
    values = len(set(now.values[name]) | set(reference.values[name]))
    return (values - 1) / 2 * (1 / n + 1 / m)


def _drift(name: str, divergence: float, drifted: bool, limit: float, now: Observed, reference: Observed) -> Drift:
    shares = [_shares(one.values[name]) for one in (reference, now)]
    known, found = shares
    order = (
        COLUMNS[name].bins()
        if COLUMNS[name].edges
        else sorted(known.keys() | found.keys(), key=lambda v: (-known.get(v, 0), v))
    )
    shown = [value for value in order if value in known or value in found]
    return Drift(
        column=name,
        title=COLUMNS[name].title,
        divergence=divergence,
        chance=_chance(name, now, reference),
        limit=limit,
        drifted=drifted,
        reference={value: known.get(value, 0.0) for value in shown},
        now={value: found.get(value, 0.0) for value in shown},
        unseen=tuple(sorted(found.keys() - known.keys(), key=lambda value: (-found[value], value))),
    )


def _shares(values: Sequence[str]) -> dict[str, float]:
    return {value: count / len(values) for value, count in Counter(values).items()}
