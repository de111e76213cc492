"""`bank`: the edits that once fooled a Defender of this series, kept over its editions.

    bank so far + what an edition's rounds curated -> bank: deduplicated, bounded, every edit with its provenance

A share of the bank (`suite`) is the regression suite: every challenger sits it, no Defender is ever trained on it. The
rest is replayed: a share of every lesson (`defender_round.replay_share`) is drawn from it, against forgetting. Which of the two an edit belongs to is a function of its source picture and question alone, so it never changes sides.
"""

from pydantic import Field

from aot_core.contracts.artifact import ArtifactRef
from aot_core.contracts.base import Frozen
from aot_core.contracts.stage import StageDeclaration

VERSION = 1
"""Raised by hand when the stage gives another result for the same config and inputs."""
STAGE = StageDeclaration(data_set=True)


class BankConfig(Frozen):
    """How much of the past is kept."""

    seed: int = Field(default=0, ge=0)
    """Of the choice of what goes where there is too much."""
    capacity: int = Field(default=2000, ge=1)
    """Edits that the bank holds at most, suite included. Beyond it the hardest of each edition stay, in equal shares."""
    suite: float = Field(default=0.25, ge=0, le=0.9)
    """Share of the questions that is held back from lessons as the regression suite."""


class BankInputs(Frozen):
    """What there was, and what has come."""

    bank: ArtifactRef | None = None
    """The bank so far; None begins one."""
    curated: tuple[ArtifactRef, ...]
    """What `curate` wrote in this edition's rounds, in their order."""
    edition: str
    """`SERIES/NUMBER`: the provenance of what is new."""


class BankOutputs(Frozen):
    """The artifact is a data set: split `train` is replayed, split `evaluate` is the regression suite."""

    lessons: int
    """Edits that may be replayed."""
    suite: int
    """Edits of the regression suite."""
    new: int
    """Edits that this edition has added."""
    duplicates: int
    """Edits that the bank held already: the same question about a picture that looks the same."""
    dropped: int
    """Edits that went because the bank was full."""
    missing: int
    """Edits of the bank so far whose picture is gone or damaged; they are left out."""
