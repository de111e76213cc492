"""`curate`: the new Attacker edits fresh scenes; what is valid, hard and not hopeless becomes the Defender's
lesson."""

from typing import Literal

from pydantic import Field, model_validator

from aot_core.contracts.artifact import ArtifactRef, ExternalRef
from aot_core.contracts.attack import ProposalSettings, ValiditySettings
from aot_core.contracts.base import Frozen
from aot_core.contracts.learning import DType
from aot_core.contracts.stage import StageDeclaration
from aot_core.contracts.texts import StageSeed

VERSION = 4
"""Raised by hand when the stage gives another result for the same config and inputs."""
STAGE = StageDeclaration(data_set=True)


class CurateConfig(Frozen):
    """Edit, check, ask, choose."""

    seed: StageSeed = 0
    """Also chooses the scenes, so that every round sees others."""
    draw: Literal["newest", "uniform", "prioritised"] = "newest"
    """Who edits: the newest Attacker alone, or, for each scene, one drawn from all Attackers so far, each as likely, or
    by its success (fictitious self-play: a Defender that only meets the newest may forget the older ones)."""
    proposals: ProposalSettings = ProposalSettings()
    validity: ValiditySettings = ValiditySettings()
    scenes: int = Field(default=300, ge=1, le=10_000_000)
    """Scenes of the `train` split that are edited (all of them where there are fewer)."""
    edits_per_scene: int = Field(default=2, ge=1, le=1024)
    """Edits tried a scene, with an instruction each."""
    steps: int = Field(default=6, ge=1, le=1000)
    """Denoising steps of an edit."""
    samples: int = Field(default=4, ge=1, le=1024)
    """k: answers of the Defender an edit, to tell how hard it is."""
    temperature: float = Field(default=1.0, gt=0, le=100)
    hopeless_below: float = Field(default=0.0, ge=0, le=1)
    """An edit whose share of right answers is at or below this is hopeless."""
    trivial_above: float = Field(default=1.0, ge=0, le=1)
    """An edit whose share of right answers is at or above this is trivial."""
    hopeless_share: float = Field(default=0.3, ge=0, lt=1)
    """At most this share of the result may be hopeless edits: some become learnable as others are learned."""
    trivial_share: float = Field(default=0.4, ge=0, lt=1)
    """At most this share of the result may be trivial edits: they keep what is known."""
    minimum: int = Field(default=64, ge=1, le=100_000_000)
    """Fewer samples than this and the bounds on shares yield: trivial, then hopeless edits fill up."""
    maximum: int | None = Field(default=None, ge=1, le=100_000_000)
    """More samples than this are not kept."""
    defender_dtype: DType = "float32"
    gallery_rows: int = Field(default=8, ge=0, le=1000)

    @model_validator(mode="after")
    def _bounds(self) -> "CurateConfig":
        if self.hopeless_below >= self.trivial_above:
            raise ValueError(
                f"hopeless_below {self.hopeless_below} must be less than trivial_above {self.trivial_above}"
            )
        if self.maximum is not None and self.maximum < self.minimum:
            raise ValueError(f"maximum {self.maximum} is less than minimum {self.minimum}")
        return self


class CurateInputs(Frozen):
    dataset: ArtifactRef
    attacker: ArtifactRef
    """The Attacker that this round has just trained."""
    pool: tuple[ArtifactRef, ...] = ()
    """The Attackers of earlier rounds, and of other campaigns; used where `draw` is not "newest"."""
    successes: tuple[float, ...] = ()
    """Share of successful edits of each of the pool, then of the newest: what "prioritised" goes by."""
    defender: ArtifactRef
    """The Defender that will be trained on the result."""
    attacker_base: ExternalRef
    defender_base: ExternalRef
    judge: ExternalRef | None = None
    """`validity.judge`, pinned."""


class CurateOutputs(Frozen):
    """The funnel. The artifact is a data set (`aot_core.data.dataset`) with `funnel.json` and `pictures/`."""

    edited: int
    """Edits made."""
    intact: int
    """... of which the protected boxes stand (SSIM)."""
    confined: int
    """... of which nothing changed outside the edited regions."""
    semantic: int
    """... of which the edited regions show objects."""
    valid: int
    """... of which the truth holds."""
    hopeless: int
    """Valid ones that the Defender never gets right."""
    trivial: int
    """Valid ones that it always gets right."""
    hard: int
    """The others."""
    kept: int
    """Samples in the result."""
    success: float
    """Share of the valid edits that fooled every answer."""
    mean_correct: float
    """Mean share of right answers on the kept edits."""
