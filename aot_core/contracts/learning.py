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
    lora: LoraSettings | None = None
    gradient_checkpointing: bool = False


class EditorSettings(Frozen):
    """How a big editor (Qwen-Image-Edit and Plus, FLUX Kontext) is driven; `aot-tiny-edit` has nothing to set."""

    resolution: int = Field(default=512, ge=16, le=16_384, multiple_of=16)
    """Side in pixels of the square frame that images are edited in. An image is scaled to fit, with grey bars where it
    is not square, and its edit is brought back to the image's own size. (The stock pipelines always edit an area of
    1024 x 1024: four times the tokens of 512.)"""
    condition_resolution: int = Field(default=384, ge=16, le=16_384)
    """Side in pixels of what the text encoder of Qwen-Image-Edit-Plus sees; the other editors' see the frame."""
    true_cfg_scale: float = Field(default=1.0, ge=1, le=1000)
    """Classifier-free guidance; 1 is without, and half the time."""
    negative_prompt: Prompt = " "
    """What guidance leads away from."""
    guidance_scale: float = Field(default=2.5, gt=0, le=1000)
    """What a guidance-distilled transformer (FLUX Kontext) is told."""
    max_prompt_tokens: int = Field(default=512, ge=8, le=512)
    """To which FLUX's T5 pads an instruction."""
    keep_source: bool = True
    """Whether the source's own pixels stand where the flow left its latents alone, so that an edit costs nothing
    outside its place: neither by scaling nor by the autoencoder."""
    keep_below: float = Field(default=0.15, ge=0, le=1000)
    """Root mean square change of a token's latents (of about unit variance) up to which the source's pixels stand."""
    edit_above: float = Field(default=0.35, gt=0, le=1000)
    """The same from which the edited ones stand; in between they mix."""
    offload: bool = False
    """Whether text encoders and autoencoder wait in the CPU's memory while the transformer works."""
    forward_batch: int = Field(default=8, ge=1, le=1_000_000)
    """Edits in a pass of the transformer where no gradient is wanted; training's passes go by `micro_batch`."""
    cached_encodings: int = Field(default=256, ge=0, le=10_000_000)
    """Encoded sources and prompts that are kept for when a scene comes again."""

    @model_validator(mode="after")
    def _mixes(self) -> "EditorSettings":
        if self.keep_below >= self.edit_above:
            raise ValueError(f"keep_below {self.keep_below} must be less than edit_above {self.edit_above}")
        return self


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
