"""`warm_start_attacker`: flow-matching SFT of the editor on implantation pairs (arXiv 2602.22227, the Attacker's cold
start)."""

from pydantic import Field

from aot_core.contracts.artifact import ArtifactRef, ExternalRef
from aot_core.contracts.base import Frozen
from aot_core.contracts.learning import EditorSettings, ModelSettings
from aot_core.contracts.stage import StageDeclaration
from aot_core.contracts.texts import StageSeed

VERSION = 2
"""Incremented by hand when the stage gives a different result for the same config and inputs."""
STAGE = StageDeclaration(checkpoint="attacker")


class WarmStartAttackerConfig(Frozen):
    """Supervised flow matching on (image, instruction, edited image) of the data set's `warm_start` split."""

    seed: StageSeed = 0
    model: ModelSettings = ModelSettings()
    editor: EditorSettings | None = None
    """Settings of the big editors. None: their defaults. The artifact records the settings that its Attacker was
    trained with; curation and evaluation use the same."""
    pairs: int = Field(default=1500, ge=1, le=100_000_000)
    """Maximum number of pairs used."""
    updates: int = Field(default=100, ge=1, le=10_000_000)
    batch_size: int = Field(default=64, ge=1, le=1_000_000)
    """Pairs per device step."""
    gradient_accumulation: int = Field(default=1, ge=1, le=100_000)
    """Device steps per update."""
    learning_rate: float = Field(default=1e-4, gt=0, le=10)
    warmup_ratio: float = Field(default=0.1, ge=0, lt=1)
    """Share of the updates in which the learning rate rises. It then falls along a cosine."""
    max_grad_norm: float = Field(default=1.0, gt=0, le=1_000_000)
    changed_weight: float = Field(default=10.0, ge=1, le=1_000_000)
    """Weight of the loss at pixels where the pair differs, relative to the others."""
    question_share: float = Field(default=0.5, ge=0, le=1)
    """How often the question is appended to the instruction, as it is in the rounds."""


class WarmStartAttackerInputs(Frozen):
    dataset: ArtifactRef
    """What `prepare_data` wrote."""
    base: ExternalRef
    """The base Attacker."""


class WarmStartAttackerOutputs(Frozen):
    """The artifact holds `model/` (the whole pipeline) or `adapter/` (LoRA)."""

    pairs: int
    updates: int
    first_loss: float
    """Mean flow-matching loss over the first tenth of the updates."""
    last_loss: float
    """The same over the last tenth."""
