"""A series: campaigns that recur, each from where the last one ended. One of them is an edition.

    [series] of a config --plan--> `EditionPlan` (pinned: whom it begins with, whom it meets) --campaign--> `EditionEnd`

The plan is written into the store before anything runs, and never again: a late, retried or restarted run of an edition
reads it and goes on, whatever has been promoted meanwhile.
"""

from typing import Annotated, Literal

from pydantic import Field

from aot_core.contracts.artifact import ArtifactRef
from aot_core.contracts.base import LATER, Frozen

SERIES_NAME = r"^[a-z0-9][a-z0-9_-]{0,62}$"
AttackerUri = Annotated[str, Field(pattern=r"^aot://attacker_round/[0-9a-f]{64}$")]


class PoolRule(Frozen):
    """Which Attackers of earlier editions are used in an edition, in addition to the config's `adversaries`."""

    rule: Literal["newest", "hardest", "none"] = "newest"
    """newest: the Attackers trained last. hardest: of the last `candidates`, those under which the edition's initial
    Defender has the lowest accuracy, measured on its own test set. none: no Attackers of earlier editions."""
    count: int = Field(default=4, ge=1, le=64)
    """Maximum number of these Attackers."""
    candidates: int = Field(default=12, ge=1, le=256)
    """For "hardest": maximum number of Attackers that are measured, newest first."""


class BudgetSettings(Frozen):
    """The budget of an edition. When it is exceeded, the edition ends after the current stage, evaluates what it has,
    and reports it. The next edition continues from there."""

    hours: float | None = Field(default=None, gt=0, le=87_840)
    """Total hours of the stages that this edition ran itself, by their records. None: no limit."""
    stages: int | None = Field(default=None, ge=1, le=100_000)
    """Maximum number of stages in its rounds (Attacker, curation, Defender). None: no limit."""


class SeriesSettings(Frozen):
    """`[series]`: how campaigns of this config recur."""

    name: str = Field(pattern=SERIES_NAME)
    """The series' name. A new name starts a new series with edition 1."""
    defender: Literal["base", "champion", "last"] = "champion"
    """Where an edition's Defender starts. base: from the base model and its warm start. champion: from the version that
    has the alias `champion` when the edition is planned. last: from the last edition's Defender, promoted or not. If
    there is none yet, from the base."""
    attacker: Literal["fresh", "warm_start", "newest"] = "fresh"
    """Where an edition's Attacker starts. fresh: from a warm start on the edition's own data (newly trained exploiters
    find what a league has forgotten). warm_start: from the series' first warm start. newest: from the last Attacker of
    the last edition."""
    adapters: Literal["continue", "merge"] = "continue"
    """What a round does with the LoRA adapter that it starts from: continue training it, or merge it into the base and
    train a full model (`model.lora` unset)."""
    data: Literal["redraw", "same"] = "redraw"
    """Whether each edition draws new scenes from the source, or keeps the first edition's draw. "same" is for a source
    folder that grows; only its new part is then processed."""
    pool: PoolRule = PoolRule()
    bank: bool = True
    """Whether edits that fooled a Defender are stored, replayed and used as a regression suite (`[bank]`)."""
    on_drift: Literal["warn", "stop", "ignore"] = "warn"
    """What happens if the data has drifted from the champion's (`[compare_data]`, `clean_drop`)."""
    clean_drop: Annotated[float, LATER, Field(gt=0, le=1)] = 0.1
    """Before training, the edition's initial Defender is asked this edition's clean questions. If its strict accuracy
    (0..1) is at least this much lower than on the first edition's questions, and Fisher's exact test confirms the fall
    at the 1 % level, labels or images are in doubt, and `on_drift` applies."""
    unfinished: Literal["resume", "leave"] = "resume"
    """What a scheduled run does first with an earlier edition that died: finish it, or leave it for
    `aot run --edition N`."""
    budget: BudgetSettings = BudgetSettings()


class EditionPlan(Frozen):
    """What an edition begins with, pinned when it is planned. Part of its campaign's identity."""

    series: str = Field(pattern=SERIES_NAME)
    number: int = Field(ge=1)
    slot: str = ""
    """The scheduled start for which it was planned, UTC, ISO 8601 to the minute. Empty if it was started by hand."""
    seed: int = Field(ge=0)
    """The campaign's seed, derived from the series, the config's seed and the number."""
    defender: ArtifactRef | None = None
    """The initial Defender. None: the base and its warm start."""
    defender_version: str = ""
    """Its version in the registry. Empty if it has none."""
    lineage: tuple[str, ...] = ()
    """The ancestors of that Defender, nearest first: `version 5`, `version 3`, `aot-tiny-vl`."""
    attacker: ArtifactRef | None = None
    """The initial Attacker. None: a warm start of its own."""
    pool: tuple[AttackerUri, ...] = ()
    """Attackers of earlier editions: used as they are, or the candidates for the hardest."""
    bank: ArtifactRef | None = None
    """The previous bank."""
    reference: ArtifactRef | None = None
    """The data set on which the champion was trained; the reference for drift."""
    previous: ArtifactRef | None = None
    """The last edition's data set, whose shards a growing source reuses."""
    exam: ArtifactRef | None = None
    """The first edition's data set: the fixed exam on which the editions' Defenders are comparable."""
    told: tuple[str, ...] = ()
    """Messages of the planning: a champion that could not be used, and so on."""


class EditionEnd(Frozen):
    """The outcome of an edition."""

    number: int = Field(ge=1)
    campaign: str
    """The campaign's key."""
    outcome: str
    """`promoted`, `refused: ...`, `stopped: ...`."""
    version: str = ""
    """The registered Defender's."""
    model: str = "aot-defender"
    """The registered model that it is a version of."""
    defender: ArtifactRef | None = None
    attackers: tuple[ArtifactRef, ...] = ()
    """The Attackers of the rounds, in order."""
    warm_attacker: ArtifactRef | None = None
    """Its Attacker's warm start, if it made one."""
    dataset: ArtifactRef | None = None
    bank: ArtifactRef | None = None
    figures: dict[str, float] = Field(default_factory=dict)
    """Of the last evaluation: `strict/clean`, `worst`, `flips/attacker_1`, ..."""
    exam: dict[str, float] = Field(default_factory=dict)
    """Strict accuracy on the fixed exam (the first edition's questions and noise), by condition."""
    rounds: int = 0
    """Completed rounds."""
    seconds: float = 0.0
    """Total seconds of the stages that it ran itself."""
    stages: int = 0
    over_budget: str = ""
    """The part of the budget that was used up. Empty if none was."""
    ended_at: str = ""
    """UTC, ISO 8601."""

    @property
    def promoted(self) -> bool:
        """Whether its Defender leads, or led when the edition ended."""
        return self.outcome.startswith("promoted")
