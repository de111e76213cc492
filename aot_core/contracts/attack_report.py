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
    """Settings of a probe."""

    count: int = Field(default=8, ge=1, le=1024)
    """Number of edits."""
    edits: tuple[int, int] = (1, 3)
    """Minimum and maximum number of changes in an edit."""
    samples: int = Field(default=3, ge=1, le=64)
    """k: answers sampled per image."""
    temperature: float = Field(default=1.0, gt=0, le=100)
    steps: int = Field(default=6, ge=1, le=1000)
    """Denoising steps."""
    seed: StageSeed = 0
    judge: ModelName | None = None
    """For photographs: the image-text-to-text model that judges whether an edit is valid."""

    def reward(self, *, photograph: bool) -> RewardSettings:
        """The training reward's settings for this probe."""
        validity = PHOTOGRAPHS.model_copy(update={"judge": self.judge}) if photograph else ValiditySettings()
        return RewardSettings(samples=self.samples, temperature=self.temperature, efficacy="share", validity=validity)


class AttackedEdit(Frozen):
    """One edit: the editor's instruction, the Defender's answers, and the reward with its parts."""

    file: str
    """The picture, beside the report."""
    instruction: str
    answers: tuple[str | None, ...]
    """The letters of the k answers; None for an answer without a letter."""
    right: float
    """Share of right answers, 0..1."""
    misled: bool
    """The edit is valid, every answer to it is wrong, and every answer to the clean image was right."""
    valid: bool
    """Intact, confined, semantic, and with an unchanged true answer."""
    intact: bool
    """Localized SSIM on the protected boxes is high enough."""
    confined: bool
    """Hardly anything changed outside the edited regions."""
    semantic: bool
    """The instruction was followed, as far as can be checked."""
    truth_kept: bool
    ssim: float
    outside: float
    """Share of the image's pixels that changed visibly outside the edited regions."""
    confidence: float
    reward: float
    """The edit's reward in training; 0 if it is not valid."""
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
    """How the true answer was checked: derived again by a parser from the edited image; or, in photographs, by no
    edited region touching a box of the question (which cannot see what was painted there); or by that and the verdict
    of `settings.judge`."""
    clean_answers: tuple[str | None, ...]
    clean_right: float
    edits: tuple[AttackedEdit, ...]
    """Most successful first."""

    @property
    def valid(self) -> int:
        return sum(edit.valid for edit in self.edits)

    @property
    def wrong(self) -> float:
        """Share of wrong answers over the valid edits, 0..1; 0 if none is valid."""
        return sum(1 - edit.right for edit in self.edits if edit.valid) / max(1, self.valid)

    @property
    def misled(self) -> int:
        return sum(edit.misled for edit in self.edits)
