"""`compare_data`: how far a data set has drifted from the one that the champion was trained on.

Kinds of question, classes and sizes of things, and the pictures' brightness, contrast, saturation and size: each by a
distance between distributions.
"""

from pydantic import Field

from aot_core.contracts.artifact import ArtifactRef
from aot_core.contracts.base import Frozen
from aot_core.contracts.stage import StageDeclaration
from aot_core.contracts.texts import StageSeed

VERSION = 1
"""Incremented by hand when the stage gives a different result for the same config and inputs."""
STAGE = StageDeclaration()


class CompareDataConfig(Frozen):
    """When two data sets count as different."""

    seed: StageSeed = 0
    """Seed of the choice of images that are measured."""
    limit: float = Field(default=0.1, gt=0, le=1000)
    """Kullback-Leibler divergence (nats) of a column from the reference's, in excess of the value expected by chance at
    the data sets' sizes. More is drift. Twelve comparisons of redraws of the procedural world stayed under 0.007 above
    chance with the sizes of `configs/tiny.toml`, six under 0.08 with the 108 samples of `configs/smoke.toml`."""
    pictures: int = Field(default=500, ge=1, le=100_000_000)
    """Maximum number of images measured per data set."""


class CompareDataInputs(Frozen):
    dataset: ArtifactRef
    """Made by `prepare_data`."""
    reference: ArtifactRef
    """The champion's data set."""


class CompareDataOutputs(Frozen):
    """The artifact holds `drift.html` and a picture of the distributions."""

    divergence: dict[str, float]
    """Column to its divergence (nats); 0 is equal. Values that the reference never had make it large, not infinite."""
    chance: dict[str, float]
    """Column to the divergence (nats) that two draws of these sizes from one distribution have on the average."""
    unseen: dict[str, tuple[str, ...]]
    """Column to values that the reference never had, the most frequent first; columns without any are left out."""
    drifted: tuple[str, ...]
    """The columns whose divergence is more than limit and chance together, the worst first."""
