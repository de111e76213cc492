"""Settings that several learners share."""

from typing import Literal

from pydantic import Field

from aot_core.contracts.base import Frozen

DType = Literal["float32", "bfloat16", "float16"]


class LoraSettings(Frozen):
    """Low-rank adapters (peft). A learner without them trains all its weights."""

    rank: int = Field(default=16, ge=1)
    alpha: int = Field(default=32, ge=1)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    target_modules: tuple[str, ...] | Literal["all-linear"] = "all-linear"


class ModelSettings(Frozen):
    """How a base model is loaded and which of its weights are trained."""

    dtype: DType = "float32"
    lora: LoraSettings | None = None
    gradient_checkpointing: bool = False
