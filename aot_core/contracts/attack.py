"""What an attack is and when it counts: settings that the Attacker's round, curation and tests share."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from aot_core.contracts.base import Frozen
from aot_core.contracts.scene import EditKind


class ProposalSettings(Frozen):
    """What the Attacker is told to do to a scene."""

    edits: tuple[int, int] = (2, 3)
    """How many edits an instruction asks for: least, most."""
    kinds: Annotated[tuple[EditKind, ...], Field(min_length=1)] = ("add", "add", "add", "replace")
    """Drawn from for every edit; a kind named several times is drawn more often."""
    named_share: float = Field(default=0.5, ge=0, le=1)
    """The share of painted objects that the instruction names, always a semantic distractor that leaves the truth
    alone; of the others only the place is told, and what to paint is the Attacker's choice."""
    show_question: bool = True
    """Whether the instruction ends with the question that the edit is to mislead about."""

    @model_validator(mode="after")
    def _range(self) -> "ProposalSettings":
        if not 1 <= self.edits[0] <= self.edits[1] <= 4:
            raise ValueError(f"edits is {self.edits}; give least <= most within 1..4")
        return self


class ValiditySettings(Frozen):
    """When an edit is fair: the question's objects stand, the truth holds, and what is painted is an
    object."""

    min_ssim: float = Field(default=0.85, ge=0, le=1)
    """Integrity: localized SSIM on the protected boxes must be at least this."""
    min_confidence: float = Field(default=0.8, ge=0, le=1)
    """Semantics: how well the parser must explain what is painted in each edited region as an object."""
    max_outside: float = Field(default=0.02, ge=0, le=1)
    """Share of the image's pixels that may change visibly outside the edited regions."""


class RewardSettings(Frozen):
    """reward = valid x confidence x (floor + (1 - floor) ((1 - dense) efficacy + dense margin)); 0 where
    invalid."""

    samples: int = Field(default=3, ge=1)
    """k: sampled answers of the Defender an edit."""
    temperature: float = Field(default=1.0, gt=0)
    efficacy: Literal["share", "consecutive"] = "share"
    """"share" of wrong answers, or 1 only if all k are wrong (the paper's)."""
    dense: float = Field(default=0.7, ge=0, le=1)
    """Weight of the Defender's margin (best wrong letter's log-probability less the right one's, squashed to
    0..1): it tells edits apart where all answers are right, so that groups are not flat."""
    margin_scale: float = Field(default=2.0, gt=0)
    """The margin (nats) is divided by this before the logistic function."""
    floor: float = Field(default=0.2, ge=0, lt=1)
    """What a valid edit earns that misleads nobody: invalid ones must earn less."""
    validity: ValiditySettings = ValiditySettings()
