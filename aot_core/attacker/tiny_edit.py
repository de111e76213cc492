"""`aot-tiny-edit`: the tiny editor as a diffusers pipeline.

Image and instruction flow in; the image is encoded, noise becomes edited latents by a rectified flow in a few
steps, and these are decoded. What the flow left alone is taken over from the source pixel by pixel
(`composite`), as inpainting pipelines do, so that an edit costs nothing outside its place.

    pipeline = TinyEditPipeline.from_pretrained(folder)
    edited = pipeline(image, "Add a red ring at row 2, column 3.").images[0]
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers.pipelines.pipeline_utils import DiffusionPipeline, ImagePipelineOutput
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from PIL import Image
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from aot_core.attacker.conditioning import Conditioning
from aot_core.attacker.tiny_autoencoder import TinyAutoencoder
from aot_core.attacker.tiny_text import TinyTextEncoder, tokenize
from aot_core.attacker.tiny_transformer import PACK, TinyEditTransformer, pack

KEEP_BELOW, EDIT_ABOVE = 0.15, 0.35
"""Root mean square change of a token's latents (unit variance) below which the source's pixels stay, and
above which the decoded ones stand; in between they mix."""


@dataclass(frozen=True)
class TinyConditioning(Conditioning):
    """What an edit is conditioned on, encoded once for all denoising steps. B edits; `source` is (B, C, h, w)."""

    pixels: Tensor
    """(B, 3, H, W) in -1..1: the source."""
    text: Tensor
    """(B, L, D): the instruction's hidden states."""
    text_mask: Tensor
    """(B, L): 1 where there is a word."""


class TinyEditPipeline(DiffusionPipeline):
    """Edits images by instruction. Components as in the big editors: vae, text_encoder, tokenizer,
    transformer, scheduler."""

    model_cpu_offload_seq = "text_encoder->transformer->vae"

    def __init__(
        self,
        vae: TinyAutoencoder,
        text_encoder: TinyTextEncoder,
        tokenizer: PreTrainedTokenizerFast,
        transformer: TinyEditTransformer,
        scheduler: FlowMatchEulerDiscreteScheduler,
    ) -> None:
        super().__init__()
        self.register_modules(
            vae=vae,
            text_encoder=text_encoder,
            tokenizer=tokenizer,
            transformer=transformer,
            scheduler=scheduler,
        )

    @torch.no_grad()
    def encode(self, images: Sequence[Image.Image], instructions: Sequence[str]) -> TinyConditioning:
        """Images and instructions, one each, to a condition.

        Raises ValueError where their numbers or the images' size are wrong.
        """
        if len(images) != len(instructions):
            raise ValueError(f"{len(images)} images but {len(instructions)} instructions; give one each")
        side = self.image_side
        for image in images:
            if image.size != (side, side):
                raise ValueError(f"image is {image.size[0]}x{image.size[1]}; this editor takes {side}x{side} pixels")
        device, dtype = self.transformer.device, self.transformer.dtype
        pixels = images_to_pixels(images).to(device, dtype)
        ids, mask = tokenize(self.tokenizer, instructions)
        ids, mask = ids.to(device), mask.to(device)
        return TinyConditioning(self.vae.encode(pixels), pixels, self.text_encoder(ids, mask), mask)

    @property
    def image_side(self) -> int:
        return self.transformer.config["latent_size"] * self.vae.spatial_factor

    def sigmas(self, steps: int) -> Tensor:
        """The flow times of a run of `steps` steps: (steps + 1,) from 1 (noise) down to 0, shifted as the
        scheduler says."""
        self.scheduler.set_timesteps(sigmas=np.linspace(1.0, 1.0 / steps, steps), device=self.transformer.device)
        return self.scheduler.sigmas

    def velocity(self, latents: Tensor, time: Tensor, condition: TinyConditioning) -> Tensor:
        """dx/dt at flow times `time` (B,): shape as `latents`."""
        return self.transformer(latents, condition.source, time, condition.text, condition.text_mask)

    @torch.no_grad()
    def decode(self, latents: Tensor, condition: TinyConditioning) -> Tensor:
        """Edited pixels (B, 3, H, W) in -1..1, the untouched ones exactly the source's."""
        return composite(condition.pixels, self.vae.decode(latents), condition.source, latents)

    @torch.no_grad()
    def __call__(
        self,
        image: Image.Image | Sequence[Image.Image],
        prompt: str | Sequence[str],
        num_inference_steps: int = 8,
        generator: torch.Generator | None = None,
        latents: Tensor | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
    ) -> ImagePipelineOutput | tuple:
        """Edit an image, or several, by an instruction each (or one for all).

        `latents` (B, C, h, w) is the initial noise, drawn from `generator` unless given. `output_type` is
        "pil", "np" ((B, H, W, 3) in 0..1) or "latent".
        """
        if output_type not in ("pil", "np", "latent"):
            raise ValueError(f"output_type {output_type!r} is not one of pil, np, latent")
        images = [image] if isinstance(image, Image.Image) else list(image)
        prompts = [prompt] * len(images) if isinstance(prompt, str) else list(prompt)
        condition = self.encode([picture.convert("RGB") for picture in images], prompts)
        noise = torch.randn(condition.source.shape, generator=generator) if latents is None else latents
        edited = noise.to(condition.source)
        self.sigmas(num_inference_steps)
        for timestep in self.progress_bar(self.scheduler.timesteps):  # pyright: ignore
            time = (timestep / self.scheduler.config["num_train_timesteps"]).expand(len(images)).to(edited)
            velocity = self.velocity(edited, time, condition)
            edited: Tensor = self.scheduler.step(velocity, timestep, edited, return_dict=False)[0]
        if output_type == "latent":
            return ImagePipelineOutput(images=edited) if return_dict else (edited,)  # pyright: ignore
        pixels = self.decode(edited, condition)
        result = pixels_to_images(pixels) if output_type == "pil" else _unit(pixels).permute(0, 2, 3, 1).numpy()
        return ImagePipelineOutput(images=result) if return_dict else (result,)


def save_pipeline(pipeline: DiffusionPipeline, folder: Path) -> None:
    """`save_pretrained` as safetensors, without the places that the parts were loaded from: the same weights give
    the same bytes on every machine."""
    pipeline.save_pretrained(folder, safe_serialization=True)
    for path in [*folder.glob("*/config.json"), folder / "model_index.json"]:
        config = json.loads(path.read_text())
        config.pop("_name_or_path", None)
        path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def composite(pixels: Tensor, decoded: Tensor, source: Tensor, latents: Tensor) -> Tensor:
    """The decoded image where tokens changed, the source's pixels where they did not.

    `pixels` and `decoded` are (B, 3, H, W), `source` and `latents` (B, C, h, w). How far a token changed is
    the root mean square difference of its latents.
    """
    batch, _, height, width = latents.shape
    change = (pack(latents) - pack(source)).float().pow(2).mean(-1).sqrt()
    share = ((change - KEEP_BELOW) / (EDIT_ABOVE - KEEP_BELOW)).clamp(0, 1)
    share = share.reshape(batch, 1, height // PACK, width // PACK).to(decoded.dtype)
    share = torch.nn.functional.interpolate(share, size=pixels.shape[-2:], mode="nearest")
    return pixels + share * (decoded - pixels)


def images_to_pixels(images: Sequence[Image.Image]) -> Tensor:
    """RGB images of one size to (B, 3, H, W) in -1..1."""
    stacked = np.stack([np.asarray(image) for image in images])
    return torch.from_numpy(stacked).permute(0, 3, 1, 2).float() / 127.5 - 1


def pixels_to_images(pixels: Tensor) -> list[Image.Image]:
    """(B, 3, H, W) in -1..1, clamped, to RGB images."""
    whole = (_unit(pixels) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    return [Image.fromarray(picture) for picture in whole]


def _unit(pixels: Tensor) -> Tensor:
    return (pixels.detach().float().cpu() * 0.5 + 0.5).clamp(0, 1)
