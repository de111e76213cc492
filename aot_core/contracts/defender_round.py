"""`defender_round`: DAPO on the curated edits (arXiv 2602.22227, phase 2; DAPO: arXiv 2503.14476)."""

from typing import Annotated

from pydantic import Field, model_validator

from aot_core.contracts.artifact import ArtifactRef, ExternalRef
from aot_core.contracts.base import Frozen
from aot_core.contracts.learning import ModelSettings

VERSION = 1
"""Raised by hand when the stage gives another result for the same config and inputs."""


class DefenderRoundConfig(Frozen):
    """Group-relative policy optimisation with an asymmetric clip, token-level loss and the paper's reward."""

    seed: int = Field(default=0, ge=0)
    model: ModelSettings = ModelSettings()
    freeze_vision: bool = True
    """Leave the vision tower as it is: a round teaches where to look, and noisy gradients would blur sight."""
    clean_share: Annotated[float, Field(ge=0, le=1)] = 0.25
    """Share of the prompts that show the clean scene instead of the edited one, so that clean accuracy is kept."""
    generations: int = Field(default=50, ge=1)
    """How often new answers are sampled; each is followed by `iterations` updates."""
    prompts: int = Field(default=32, ge=1)
    """P: prompts a generation."""
    group_size: int = Field(default=8, ge=2)
    """G: answers a prompt (the paper: 5)."""
    iterations: int = Field(default=2, ge=1)
    """Updates on the same answers; from the second on the clip is alive."""
    micro_batch: int | None = Field(default=None, ge=1)
    """Answers a device step; the rest of an update's P * G is accumulated. None: all at once."""
    temperature: float = Field(default=1.5, gt=0)
    """Of sampling and of the trained policy alike. Above 1 where a small model is too sure of itself to explore (the
    paper: 1)."""
    learning_rate: float = Field(default=5e-5, gt=0)
    warmup_ratio: float = Field(default=0.05, ge=0, lt=1)
    """Share of the updates in which the learning rate rises; then it stays."""
    epsilon_low: float = Field(default=0.2, gt=0, lt=1)
    epsilon_high: float = Field(default=0.28, gt=0)
    """The ratio is clipped to 1 - epsilon_low .. 1 + epsilon_high."""
    beta: float = Field(default=0.0, ge=0)
    """Weight of the KL to the round's first policy; DAPO has none."""
    max_grad_norm: float = Field(default=1.0, gt=0)
    max_prompt_pixels: int | None = Field(default=None, ge=1)
    """Larger images are scaled down to this area (the paper: 4,194,304); None leaves it to the processor."""
    max_completion_tokens: int = Field(default=12, ge=1)

    @model_validator(mode="after")
    def _micro_batch_divides(self) -> "DefenderRoundConfig":
        if self.micro_batch is not None and (self.prompts * self.group_size) % self.micro_batch:
            raise ValueError(
                f"micro_batch {self.micro_batch} does not divide prompts * group_size = "
                f"{self.prompts * self.group_size}; choose a divisor"
            )
        return self


class DefenderRoundInputs(Frozen):
    curated: ArtifactRef
    """What `curate` wrote: samples with edited images."""
    defender: ArtifactRef
    """The Defender so far: the last round's, or the warm start's."""
    base: ExternalRef
    """The base Defender."""


class DefenderRoundOutputs(Frozen):
    """The artifact holds `model/` (all weights) or `adapter/` (LoRA)."""

    prompts: int
    """Different prompts that were trained on."""
    updates: int
    first_reward: float
    """Mean reward over the first tenth of the generations (at least one)."""
    last_reward: float
    """The same over the last tenth."""
    flat_groups: float
    """Mean share of groups whose answers all earned the same, which teach nothing."""
    entropy: float
    """Mean entropy of the answer tokens (nats) over the last tenth of the generations."""
    clip_ratio: float
    """Mean share of tokens whose ratio was clipped."""
