"""Settings that several learners share."""

from typing import Literal

from pydantic import Field, model_validator

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


class DefenderModelSettings(ModelSettings):
    """What a multimodal LLM can do besides. `nf4` and `flash_attention_2` need a GPU: never run by this project."""

    attention: Literal["sdpa", "eager", "flash_attention_2"] = "sdpa"
    """transformers' `attn_implementation`; flash attention wants the package `flash-attn` and half precision."""
    quantization: Literal["nf4"] | None = None
    """nf4: the base's weights in 4 bits (QLoRA, arXiv 2305.14314), with the package `bitsandbytes`; needs `lora`."""

    @model_validator(mode="after")
    def _can_be_trained(self) -> "DefenderModelSettings":
        if self.quantization is not None and self.lora is None:
            raise ValueError("quantization trains an adapter on 4-bit weights; set model.lora, or leave it out")
        if self.attention == "flash_attention_2" and self.dtype == "float32":
            raise ValueError("flash_attention_2 works in half precision; set model.dtype to bfloat16, or use sdpa")
        return self
