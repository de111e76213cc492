"""Qwen-Image-Edit and Qwen-Image-Edit-Plus (2509 and later) as flow editors.

What differs from the other packed editors: a 3D autoencoder with statistics by channel, and a multimodal LLM as text
encoder, which sees the picture while it reads the instruction.

Two things of the stock pipelines do not work here as published, and are put right when one is loaded:

- `Qwen2VLProcessor` insists on a video processor, which needs torchvision. Where that is absent, the same processor
  is loaded for images and text alone.
- Since transformers 5 the text encoder gives image tokens their places in rows and columns only where it is told which
  tokens those are (`mm_token_type_ids`), and diffusers (0.42) does not tell. It is told here (`tell_image_tokens`), for
  the stock `__call__` too: without, the encoder reads pictures as it was never trained to.
"""

from typing import Any, ClassVar

import torch
from diffusers.pipelines.qwenimage.pipeline_qwenimage_edit import QwenImageEditPipeline
from diffusers.pipelines.qwenimage.pipeline_qwenimage_edit_plus import QwenImageEditPlusPipeline
from PIL import Image
from torch import Tensor, nn
from transformers import Qwen2VLProcessor
from transformers.utils.import_utils import is_torchvision_available

from aot_core.attacker.encodings import Encoding
from aot_core.attacker.frames import fit
from aot_core.attacker.packed import EncodedPrompt, PackedEditor


class ImageTextProcessor(Qwen2VLProcessor):
    """The processor without its video part. transformers takes the parts of a processor from the parameters of its
    `__init__`: without `video_processor` there, none is looked for, loaded or saved."""

    def __init__(self, image_processor=None, tokenizer=None, chat_template=None, **kwargs):
        kwargs.pop("video_processor", None)  # a saved config may name one
        super().__init__(image_processor, tokenizer, chat_template=chat_template, **kwargs)


# A saved pipeline's index names the class and library of every part: by the public ones, for machines with torchvision.
ImageTextProcessor.__name__ = Qwen2VLProcessor.__name__
ImageTextProcessor.__module__ = Qwen2VLProcessor.__module__


class QwenEditor(PackedEditor):
    """`QwenImageEditPipeline`."""

    text_encoders: ClassVar[tuple[str, ...]] = ("text_encoder",)
    prompt_sees_image: ClassVar[bool] = True

    @classmethod
    def load_pipeline(cls, source: str, dtype: torch.dtype) -> QwenImageEditPipeline:
        """From a folder or hub name."""
        return _load(QwenImageEditPipeline, source, dtype)

    def _prompt(self, image: Image.Image, text: str) -> Encoding:
        hidden, mask = self.pipeline.encode_prompt([text], image=self._seen(image), device=self.device)
        # The pipeline drops a mask that masks nothing.
        mask = torch.ones(hidden.shape[:2], dtype=torch.bool) if mask is None else mask
        return hidden.to(self._home, self.dtype), mask.to(self._home)

    def _seen(self, image: Image.Image) -> Any:
        """What the text encoder is shown."""
        return fit(image, self.side)

    def _packed(self, pixels: Tensor) -> Tensor:
        frames = [pixels.unsqueeze(2)] if isinstance(self.pipeline, QwenImageEditPlusPipeline) else pixels.unsqueeze(2)
        # With latents given no noise is drawn; they come back as they are.
        size = (self.channels, self.side, self.side, self.dtype, self.device, None, pixels)
        pipeline: Any = self.pipeline
        return pipeline.prepare_latents(frames, 1, *size)[1]

    def _decoded(self, latents: Tensor) -> Tensor:
        pipeline = self.pipeline
        unpacked = pipeline._unpack_latents(latents, self.side, self.side, pipeline.vae_scale_factor)
        mean, std = (
            torch.tensor(values).view(1, -1, 1, 1, 1).to(unpacked)
            for values in (pipeline.vae.config.latents_mean, pipeline.vae.config.latents_std)
        )
        return pipeline.vae.decode(unpacked * std + mean, return_dict=False)[0][:, :, 0]

    def _predict(self, latents: Tensor, time: Tensor, source: Tensor, prompt: EncodedPrompt) -> Tensor:
        tokens = self.latent_side // 2
        return self.pipeline.transformer(
            hidden_states=torch.cat([latents, source], 1),
            timestep=time,
            encoder_hidden_states=prompt.text,
            encoder_hidden_states_mask=None if bool(prompt.mask.all()) else prompt.mask,
            # By edit, whatever number of images an edit sees: the noise's frame and the source's.
            img_shapes=[[(1, tokens, tokens), (1, tokens, tokens)]] * len(latents),
            attention_kwargs={},
            return_dict=False,
        )[0][:, : latents.shape[1]]

    def _combine(self, positive: Tensor, negative: Tensor) -> Tensor:
        """Guidance that keeps the length of every token's velocity, as the pipeline does."""
        mixed = super()._combine(positive, negative)
        return mixed * (positive.norm(dim=-1, keepdim=True) / mixed.norm(dim=-1, keepdim=True))


class QwenPlusEditor(QwenEditor):
    """`QwenImageEditPlusPipeline`: the text encoder sees a smaller picture, and is told that it is the first of
    several. The stock pipeline makes one edit at a time; here they are batched."""

    @classmethod
    def load_pipeline(cls, source: str, dtype: torch.dtype) -> QwenImageEditPlusPipeline:
        """From a folder or hub name."""
        return _load(QwenImageEditPlusPipeline, source, dtype)

    def _seen(self, image: Image.Image) -> Any:
        seen = self.settings.condition_resolution
        return [self.pipeline.image_processor.resize(fit(image, self.side), seen, seen)]


def tell_image_tokens(text_encoder: nn.Module) -> None:
    """Let a Qwen2.5-VL know which of its input tokens stand for pixels, where the caller does not say."""

    def tell(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        if kwargs.get("image_grid_thw") is not None and kwargs.get("mm_token_type_ids") is None:
            kwargs["mm_token_type_ids"] = (kwargs["input_ids"] == module.config.image_token_id).int()
        return args, kwargs

    text_encoder.register_forward_pre_hook(tell, with_kwargs=True)


def _load(kind: Any, source: str, dtype: torch.dtype) -> Any:
    given = {}
    if not is_torchvision_available():
        given["processor"] = ImageTextProcessor.from_pretrained(source, subfolder="processor")
    pipeline = kind.from_pretrained(source, dtype=dtype, **given)
    tell_image_tokens(pipeline.text_encoder)
    return pipeline
