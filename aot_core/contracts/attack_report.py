"""What `aot attack` found: the report's file, for machines."""

from typing import Literal

from pydantic import Field

from aot_core.contracts.attack import RewardSettings, ValiditySettings
from aot_core.contracts.base import Frozen
from aot_core.contracts.scene import Question
from aot_core.contracts.texts import ModelName, StageSeed

PHOTOGRAPHS = ValiditySettings(min_ssim=0.85, max_outside=0.02)
"""Looser than the tiny world's, as in configs/paper.toml; not measured yet."""


class ProbeSettings(Frozen):
    """How hard a picture is attacked."""

    count: int = Field(default=8, ge=1, le=1024)
    """Edits made."""
    edits: tuple[int, int] = (1, 3)
    """Changes in an edit: least, most."""
    samples: int = Field(default=3, ge=1, le=64)
    """k: answers sampled a picture."""
    temperature: float = Field(default=1.0, gt=0, le=100)
    steps: int = Field(default=6, ge=1, le=1000)
    """Denoising steps."""
    seed: StageSeed = 0
    judge: ModelName | None = None
    """For photographs: the image-text-to-text model that is asked whether an edit is fair."""

    def reward(self, *, photograph: bool) -> RewardSettings:
        """The training reward's settings for this probe."""
        validity = PHOTOGRAPHS.model_copy(update={"judge": self.judge}) if photograph else ValiditySettings()
        return RewardSettings(samples=self.samples, temperature=self.temperature, efficacy="share", validity=validity)


class AttackedEdit(Frozen):
    """One edit: what the editor was told, what the Defender answered, and the reward with its parts."""

    file: str
    """The picture, beside the report."""
    instruction: str
    answers: tuple[str | None, ...]
    """The letters of the k answers; None where one held no letter."""
    right: float
    """Share of right answers, 0..1."""
    misled: bool
    """The edit is valid, every answer to it is wrong, and every answer to the clean picture was right."""
    valid: bool
    """Intact, confined, semantic, and the truth holds."""
    intact: bool
    """Localized SSIM on the protected boxes is high enough."""
    confined: bool
    """Hardly anything changed outside the edited regions."""
    semantic: bool
    """What was asked for was done, as far as it can be read."""
    truth_kept: bool
    ssim: float
    outside: float
    """Share of the picture's pixels that changed visibly outside the edited regions."""
    confidence: float
    reward: float
    """What the edit would earn in training; 0 where it is not valid."""
    efficacy: float
    margin: float


class AttackReport(Frozen):
    """`report.json`."""

    image: str
    question: Question
    attacker: str
    defender: str
    settings: ProbeSettings
    truth_by: Literal["parser", "regions", "judge"]
    """How the truth was checked: derived anew from what a parser reads in the edited picture, or, in photographs, from
    no edited region touching a box of the question (which cannot see what the editor painted there), or from that and
    the word of `settings.judge`."""
    clean_answers: tuple[str | None, ...]
    clean_right: float
    edits: tuple[AttackedEdit, ...]
    """The most successful first."""

    @property
    def valid(self) -> int:
        return sum(edit.valid for edit in self.edits)

    @property
    def wrong(self) -> float:
        """Share of wrong answers over the valid edits, 0..1; 0 where none is valid."""
        return sum(1 - edit.right for edit in self.edits if edit.valid) / max(1, self.valid)

    @property
    def misled(self) -> int:
        return sum(edit.misled for edit in self.edits)
