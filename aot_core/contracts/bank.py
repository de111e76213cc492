"""`bank`: the edits that once fooled a Defender of this series, kept over its editions.

    bank so far + what an edition's rounds curated -> bank: deduplicated, bounded, every edit with its provenance

A share of the bank (`suite`) is the regression suite: every challenger sits it, no Defender is ever trained on it. The
rest is replayed: a share of every lesson (`defender_round.replay_share`) is drawn from it, against forgetting. Which of
the two an edit belongs to is a function of its source picture and question alone (`aot_core.data.bank.held_back`), so
it never changes sides; `defender_round.held_back` keeps the suite's questions out of the rounds' own lessons.
"""

from typing import Literal, Self

from pydantic import Field, model_validator

from aot_core.contracts.artifact import ArtifactRef
from aot_core.contracts.base import Frozen
from aot_core.contracts.stage import StageDeclaration
from aot_core.contracts.texts import StageSeed

VERSION = 1
"""Incremented by hand when the stage gives a different result for the same config and inputs."""
STAGE = StageDeclaration(data_set=True)

PROVENANCE_FILE = "provenance.jsonl"
"""In the artifact: where every edit comes from (`Provenance`), a line each, in the data set's order."""
CONFIG_FILE = "bank.json"
"""In the artifact: the `BankConfig` that it was made by."""


class BankConfig(Frozen):
    """The replay bank: which edits of earlier editions are kept."""

    seed: StageSeed = 0
    """Seed of the choice of edits that are dropped above the capacity."""
    capacity: int = Field(default=2000, ge=1, le=10_000_000)
    """Maximum number of edits in the bank, suite included. Beyond it, each edition's hardest stay, in equal shares."""
    suite: float = Field(default=0.25, ge=0, le=0.9)
    """Share of the questions that is held out of training as the regression suite. It is fixed for a bank's whole life:
    with another share, questions that were trained on would enter the suite."""
    fooled: float = Field(default=0.5, ge=0, lt=1)
    """An edit has fooled the Defender if at most this share of its answers was right, and more than this share on the
    clean scene."""
    near_duplicate_bits: int = Field(default=8, ge=0, le=192)
    """Two edited images are duplicates if their perceptual hashes differ in at most this many of 192 bits. Edits of one
    scene by different instructions differ in about 30."""


class BankInputs(Frozen):
    """What there was, and what has come."""

    bank: ArtifactRef | None = None
    """The bank so far; None begins one."""
    curated: tuple[ArtifactRef, ...]
    """What `curate` wrote in this edition's rounds, in their order. None at all: the bank so far is looked through,
    and brought to the config's bounds."""
    attackers: tuple[ArtifactRef, ...] = ()
    """The Attackers of the same rounds; empty where they are not recorded."""
    edition: str = Field(min_length=1)
    """`SERIES/NUMBER`: the provenance of what is new."""

    @model_validator(mode="after")
    def _an_attacker_a_round(self) -> Self:
        if self.attackers and len(self.attackers) != len(self.curated):
            raise ValueError(
                f"attackers: {len(self.attackers)} for {len(self.curated)} rounds; give one for each, or none at all"
            )
        return self


class Provenance(Frozen):
    """Where an edit of the bank comes from. Shares are 0..1."""

    sample_id: str
    split: Literal["train", "evaluate"]
    edition: str
    """`SERIES/NUMBER`."""
    round: int = Field(ge=1)
    curated: ArtifactRef
    """The `curate` artifact from which it was taken."""
    attacker: ArtifactRef | None = None
    """The Attacker that this round trained. With a `curate.draw` other than "newest", another Attacker of the pool may
    have made the edit. None if it was not recorded."""
    instruction: str
    """The Attacker's instruction to its editor."""
    hardness: float
    """Share of wrong answers of the Defender against which it was made."""
    clean_correct: float
    """Share of that Defender's right answers on the clean scene."""
    looks: str
    """Perceptual hash of the edited image (`aot_core.worlds.likeness`)."""


class BankOutputs(Frozen):
    """The artifact is a data set: split `train` is replayed, split `evaluate` is the regression suite. Beside it stand
    `provenance.jsonl` and `bank.json`."""

    lessons: int
    """Edits that may be replayed."""
    suite: int
    """Edits of the regression suite."""
    new: int
    """Edits added by this edition."""
    duplicates: int
    """Edits of this edition that the bank already contained: the same question about a near-duplicate image."""
    dropped: int
    """Edits dropped because the bank was full."""
    missing: int
    """Edits of the previous bank whose image is missing or damaged; they are left out."""
