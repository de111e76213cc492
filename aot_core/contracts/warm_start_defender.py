"""`warm_start_defender`: a short SFT on clean scenes (arXiv 2602.22227, the base stage before round 1)."""

from typing import Annotated

from pydantic import Field, model_validator

from aot_core.contracts.artifact import ArtifactRef, ExternalRef
from aot_core.contracts.base import LATER, Frozen
from aot_core.contracts.learning import DefenderModelSettings
from aot_core.contracts.stage import StageDeclaration
from aot_core.contracts.texts import StageSeed

VERSION = 2
"""Incremented by hand when the stage gives a different result for the same config and inputs."""
STAGE = StageDeclaration(checkpoint="defender")


class WarmStartDefenderConfig(Frozen):
    """SFT that teaches the base the answer format, on the data set's `warm_start` split."""

    seed: StageSeed = 0
    model: DefenderModelSettings = DefenderModelSettings()
    samples: int = Field(default=900, ge=1, le=100_000_000)
    """Maximum number of the split's questions used (the paper: 900)."""
    epochs: float = Field(default=1.0, gt=0, le=10_000)
    batch_size: int = Field(default=32, ge=1, le=1_000_000)
    """Samples per device step."""
    gradient_accumulation: int = Field(default=1, ge=1, le=100_000)
    """Device steps per update, divided among the processes."""
    processes: int = Field(default=1, ge=1, le=1024)
    """Number of training processes, each on a GPU of its own."""
    learning_rate: float = Field(default=1e-4, gt=0, le=10)
    warmup_ratio: float = Field(default=0.1, ge=0, lt=1)
    """Share of the updates in which the learning rate rises. It then falls along a cosine."""
    max_grad_norm: float = Field(default=1.0, gt=0, le=1_000_000)

    held_back: Annotated[float, LATER] = Field(default=0.0, ge=0, le=0.9)
    """Share of the questions that is excluded because a bank's regression suite may ask them: `bank.suite`, in every
    edition of a series."""

    @model_validator(mode="after")
    def _steps_divide(self) -> "WarmStartDefenderConfig":
        if self.gradient_accumulation % self.processes:
            raise ValueError(
                f"processes {self.processes} does not divide gradient_accumulation {self.gradient_accumulation}; "
                "choose a divisor, so that an update sees as many samples on any number of GPUs"
            )
        return self


class WarmStartDefenderInputs(Frozen):
    dataset: ArtifactRef
    """What `prepare_data` wrote."""
    base: ExternalRef
    """The base Defender."""


class WarmStartDefenderOutputs(Frozen):
    """The artifact holds `model/` (all weights) or `adapter/` (LoRA)."""

    samples: int
    updates: int
    first_loss: float
    """Mean cross-entropy of the answer tokens (nats) over the first tenth of the updates."""
    last_loss: float
    """The same over the last tenth."""
