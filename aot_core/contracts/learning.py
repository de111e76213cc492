"""Settings that several learners share."""

from typing import Literal

from pydantic import Field, model_validator

from aot_core.contracts.base import Frozen
from aot_core.contracts.texts import Name, Prompt

DType = Literal["float32", "bfloat16", "float16"]


class LoraSettings(Frozen):
    """Low-rank adapters (peft). A learner without them trains all its weights."""

    rank: int = Field(default=16, ge=1, le=65_536)
    alpha: int = Field(default=32, ge=1, le=1_000_000)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """In training. An Attacker's rounds take no notice of it: they optimise the policy that samples, which has none."""
    target_modules: tuple[Name, ...] | Literal["all-linear"] = "all-linear"


class ModelSettings(Frozen):
    """How a base model is loaded and which of its weights are trained."""

    dtype: DType = "float32"
    """float16 needs `lora`. Losses are not scaled, so that small gradients may become 0 there: prefer bfloat16."""
    lora: LoraSettings | None = None
    gradient_checkpointing: bool = False

    @model_validator(mode="after")
    def _gradients_have_room(self) -> "ModelSettings":
        # torch's GradScaler wants float32 weights ("Attempting to unscale FP16 gradients"), and AdamW's epsilon, 1e-8,
        # is 0 in float16.
        if self.dtype == "float16" and self.lora is None:
            raise ValueError(
                "dtype float16 would train all weights without loss scaling: small gradients become 0, and AdamW "
                "divides by it; use bfloat16 or float32, or set model.lora"
            )
        return self


class EditorSettings(Frozen):
    """Settings of a big editor (Qwen-Image-Edit and Plus, FLUX Kontext). `aot-tiny-edit` has no settings."""

    resolution: int = Field(default=512, ge=16, le=16_384, multiple_of=16)
    """Side in pixels of the square frame in which images are edited. An image is scaled to fit, with grey bars if it is
    not square, and its edit is scaled back to the image's own size. (The stock pipelines always edit an area of 1024 x
    1024: four times the tokens of 512.)"""
    condition_resolution: int = Field(default=384, ge=16, le=16_384)
    """Side in pixels of the image that the text encoder of Qwen-Image-Edit-Plus sees. The other editors' text encoders
    see the frame."""
    true_cfg_scale: float = Field(default=1.0, ge=1, le=1000)
    """Scale of classifier-free guidance. 1 is without guidance, in half the time."""
    negative_prompt: Prompt = " "
    """The negative prompt of guidance."""
    guidance_scale: float = Field(default=2.5, gt=0, le=1000)
    """Guidance scale passed to a guidance-distilled transformer (FLUX Kontext)."""
    max_prompt_tokens: int = Field(default=512, ge=8, le=512)
    """Length to which FLUX's T5 pads an instruction."""
    keep_source: bool = True
    """Whether the source's pixels are kept where the flow did not change its latents. An edit then changes nothing
    outside its place, neither by scaling nor by the autoencoder."""
    keep_below: float = Field(default=0.15, ge=0, le=1000)
    """Root mean square change of a token's latents (of about unit variance) up to which the source's pixels are kept.
    """
    edit_above: float = Field(default=0.35, gt=0, le=1000)
    """The same from which the edited pixels are used. In between, both are blended."""
    offload: bool = False
    """Whether text encoders and autoencoder are kept in CPU memory while the transformer runs."""
    forward_batch: int = Field(default=8, ge=1, le=1_000_000)
    """Edits per pass of the transformer without gradients; training uses `micro_batch`."""
    cached_encodings: int = Field(default=256, ge=0, le=10_000_000)
    """Number of encoded sources and prompts that are cached for scenes that recur."""

    @model_validator(mode="after")
    def _mixes(self) -> "EditorSettings":
        if self.keep_below >= self.edit_above:
            raise ValueError(f"keep_below {self.keep_below} must be less than edit_above {self.edit_above}")
        return self


class DefenderModelSettings(ModelSettings):
    """Further settings of a multimodal LLM. `nf4` and `flash_attention_2` need a GPU and were never run by this
    project."""

    attention: Literal["sdpa", "eager", "flash_attention_2"] = "sdpa"
    """transformers' `attn_implementation`. Flash attention needs the package `flash-attn` and half precision."""
    quantization: Literal["nf4"] | None = None
    """nf4: the base's weights in 4 bits (QLoRA, arXiv 2305.14314). It needs the package `bitsandbytes` and `lora`."""

    @model_validator(mode="after")
    def _can_be_trained(self) -> "DefenderModelSettings":
        if self.quantization is not None and self.lora is None:
            raise ValueError("quantization trains an adapter on 4-bit weights; set model.lora, or leave it out")
        if self.attention == "flash_attention_2" and self.dtype == "float32":
            raise ValueError("flash_attention_2 works in half precision; set model.dtype to bfloat16, or use sdpa")
        return self
