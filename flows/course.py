"""What a campaign has come to so far: its players, the exam that they sit, and the last evaluation."""

from dataclasses import dataclass, field

from aot_core.contracts.artifact import ArtifactRef, StageRecord
from aot_core.contracts.evaluate import EvaluateInputs
from aot_core.contracts.promotion import Decision


@dataclass
class Course:
    """The state of a campaign between its stages."""

    data: ArtifactRef
    attacker: ArtifactRef
    defender: ArtifactRef
    pool: list[StageRecord]
    """Attackers of other campaigns, and of earlier rounds where curation draws from them."""
    exam: EvaluateInputs
    """The inputs of the next evaluation: the Defender so far, and every Attacker so far."""
    evaluation: StageRecord
    """The last one."""
    first_attacker: ArtifactRef
    """What round 1 starts from, and with `attacker_rounds = "fresh"` every round."""
    warm_attacker: ArtifactRef | None = None
    """The Attacker's warm start, where this campaign made it."""
    defenders: list[ArtifactRef] = field(default_factory=list[ArtifactRef])
    """Defender 0, 1, 2, ..."""
    curated: list[ArtifactRef] = field(default_factory=list[ArtifactRef])
    """The rounds' curated edits."""
    sat: list[EvaluateInputs] = field(default_factory=list[EvaluateInputs])
    """The evaluations that were made."""
    played: int = 0
    """Rounds that were played to their end."""
    over_budget: str = ""
    """What of an edition's budget was used up."""


@dataclass(frozen=True)
class Ended:
    """What came of a campaign's stages."""

    course: Course
    decision: Decision
    """The gate's, about the last Defender."""
    bank: ArtifactRef | None
    """The series' bank after this edition; None outside of a series, or without a bank."""
    exam: dict[str, float]
    """Strict accuracy on the series' fixed exam, by condition; empty outside of a series."""
