"""The Attacker at work: images and instructions in, edited images out; and what training needs of an editor.

`FlowEditor` is the small surface that the trainers know: encode a condition, the flow's times and velocity,
decode, which weights learn, save. `Attacker` implements it for pipelines built like `TinyEditPipeline` and is
an `Editor` (contracts.protocols) for everybody else.
"""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol, Self, cast

import torch
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from diffusers.utils import logging
from peft import LoraConfig, PeftModel, get_peft_model
from PIL import Image
from torch import Tensor, nn

from aot_core.attacker.flow_sde import ode_step
from aot_core.attacker.tiny_edit import Condition, TinyEditPipeline, images_to_pixels, pixels_to_images, save_pipeline
from aot_core.contracts.learning import DType, ModelSettings
from aot_core.models import model_folder

MODEL, ADAPTER = "model", "adapter"
"""The folders of an artifact: the whole pipeline, or a LoRA adapter to be put on the base."""


class CheckpointError(ValueError):
    """A folder that holds no Attacker, or one that cannot be trained as the config says."""


class FlowEditor(Protocol):
    """An editor that samples a flow in a latent space. B edits; latents are (B, C, h, w)."""

    def encode(self, images: Sequence[Image.Image], instructions: Sequence[str]) -> Condition: ...

    def latents(self, images: Sequence[Image.Image]) -> Tensor:
        """Clean latents of images."""
        ...

    def sigmas(self, steps: int) -> Tensor:
        """(steps + 1,) flow times from 1 down to 0."""
        ...

    def velocity(self, latents: Tensor, time: Tensor, condition: Condition) -> Tensor: ...

    def reference_velocity(self, latents: Tensor, time: Tensor, condition: Condition) -> Tensor:
        """The velocity under the weights that `hold_reference` kept."""
        ...

    def noise(self, count: int, generator: torch.Generator) -> Tensor: ...

    def decode(self, latents: Tensor, condition: Condition) -> list[Image.Image]: ...

    def trainable(self) -> list[nn.Parameter]: ...

    def hold_reference(self) -> None:
        """Keep the present weights as the reference of a KL."""
        ...

    def save(self, folder: Path) -> None: ...


class Attacker:
    """An image editor of the flow family (implements `FlowEditor` and `contracts.protocols.Editor`)."""

    def __init__(self, pipeline: TinyEditPipeline, *, steps: int = 6, batch_size: int = 128) -> None:
        """
        Args:
            steps: denoising steps of an edit.
            batch_size: edits made at a time.
        """
        if steps < 1 or batch_size < 1:
            raise ValueError(f"steps {steps} and batch_size {batch_size} must be at least 1")
        self.pipeline = pipeline
        self.steps = steps
        self.batch_size = batch_size
        self._reference: list[Tensor] | None = None
        for part in (pipeline.vae, pipeline.text_encoder, pipeline.transformer):
            part.eval().requires_grad_(False)

    @classmethod
    def load(
        cls,
        base: str,
        adapter_or_model: Path | None = None,
        device: str = "cpu",
        dtype: DType = "float32",
        *,
        steps: int = 6,
        batch_size: int = 128,
    ) -> Self:
        """The Attacker of an artifact folder, or the base itself where none is given.

        Args:
            base: the base pipeline's name (shipped model, folder, hub name); used where the artifact holds an
            adapter. adapter_or_model: a folder with `model/` or `adapter/`, or one of these folders itself.

        Raises UnknownModelError for a base that is not there, CheckpointError for a folder that holds no
        Attacker.
        """
        folder = _checkpoint(adapter_or_model) if adapter_or_model is not None else None
        whole = folder is not None and (folder / "model_index.json").is_file()
        source = str(folder) if whole else str(model_folder(base) or base)
        index = cast(dict[str, Any], DiffusionPipeline.load_config(source))
        name = index["_class_name"]
        if name != TinyEditPipeline.__name__:
            raise CheckpointError(
                f"attacker {source!r} is a {name}, and the Attacker drives a {TinyEditPipeline.__name__}; give "
                "aot-tiny-edit, or write a FlowEditor for that pipeline"
            )
        logging.disable_progress_bar()  # a bar a load, many loads a campaign
        pipeline = TinyEditPipeline.from_pretrained(source, dtype=getattr(torch, dtype))
        if folder is not None and not whole:
            pipeline.transformer = PeftModel.from_pretrained(pipeline.transformer, str(folder)).merge_and_unload()
        return cls(pipeline.to(device), steps=steps, batch_size=batch_size)

    @classmethod
    def load_trainable(cls, base: str, folder: Path | None, settings: ModelSettings, device: str = "cpu") -> Self:
        """The Attacker to go on training: all of the transformer, or a LoRA adapter on the base's.

        An adapter stays the same adapter through the rounds, so that it never stacks; a folder with an
        adapter and settings without LoRA give the merged model. Raises CheckpointError for LoRA on a full
        model.
        """
        if settings.lora is None or folder is None:
            attacker = cls.load(base, folder, device, settings.dtype)
            if settings.lora is None:
                attacker.pipeline.transformer.requires_grad_(True)
            else:
                lora = settings.lora
                config = LoraConfig(
                    r=lora.rank,
                    lora_alpha=lora.alpha,
                    lora_dropout=lora.dropout,
                    target_modules=_linear_layers(attacker.pipeline.transformer)
                    if lora.target_modules == "all-linear"
                    else list(lora.target_modules),
                )
                attacker.pipeline.transformer = get_peft_model(attacker.pipeline.transformer, config)  # pyright: ignore
        else:
            adapter = _checkpoint(folder)
            if (adapter / "model_index.json").is_file():
                raise CheckpointError(
                    f"{folder} holds a full model, but the config trains a LoRA adapter on the base; set model.lora in "
                    "warm_start_attacker and attacker_round alike"
                )
            attacker = cls.load(base, None, device, settings.dtype)
            attacker.pipeline.transformer = PeftModel.from_pretrained(
                attacker.pipeline.transformer, str(adapter), is_trainable=True
            )
        if settings.gradient_checkpointing:
            attacker.pipeline.transformer.enable_gradient_checkpointing()
        return attacker

    @torch.no_grad()
    def edit(self, images: Sequence[Image.Image], instructions: Sequence[str], *, seed: int) -> list[Image.Image]:
        """Edit every image by its instruction, along the deterministic flow. The same seed gives the same
        edits.

        Raises ValueError when the numbers differ or an image is not of the editor's size.
        """
        if len(images) != len(instructions):
            raise ValueError(f"{len(images)} images but {len(instructions)} instructions; give one each")
        noise = self.noise(len(images), torch.Generator().manual_seed(seed))
        sigmas = self.sigmas(self.steps).tolist()
        edited: list[Image.Image] = []
        for first in range(0, len(images), self.batch_size):
            batch = slice(first, first + self.batch_size)
            condition = self.encode([image.convert("RGB") for image in images[batch]], instructions[batch])
            latents = noise[batch]
            for time, next_time in pairwise(sigmas):
                velocity = self.velocity(latents, latents.new_full((len(latents),), time), condition)
                latents = ode_step(latents, velocity, time, next_time)
            edited += self.decode(latents, condition)
        return edited

    def encode(self, images: Sequence[Image.Image], instructions: Sequence[str]) -> Condition:
        return self.pipeline.encode(images, instructions)

    @torch.no_grad()
    def latents(self, images: Sequence[Image.Image]) -> Tensor:
        transformer = self.pipeline.transformer
        return self.pipeline.vae.encode(images_to_pixels(images).to(transformer.device, transformer.dtype))

    def sigmas(self, steps: int) -> Tensor:
        return self.pipeline.sigmas(steps)

    def velocity(self, latents: Tensor, time: Tensor, condition: Condition) -> Tensor:
        return self.pipeline.velocity(latents, time, condition)

    @torch.no_grad()
    def reference_velocity(self, latents: Tensor, time: Tensor, condition: Condition) -> Tensor:
        assert self._reference is not None, "hold_reference comes first"
        present = [parameter.detach().clone() for parameter in self.trainable()]
        self._put(self._reference)
        velocity = self.velocity(latents, time, condition)
        self._put(present)
        return velocity

    def noise(self, count: int, generator: torch.Generator) -> Tensor:
        """(count, C, h, w) of standard normal noise, the same on every device."""
        side = self.pipeline.transformer.config["latent_size"]
        transformer = self.pipeline.transformer
        shape = (count, self.pipeline.vae.latent_channels, side, side)
        return torch.randn(shape, generator=generator).to(transformer.device, transformer.dtype)

    def decode(self, latents: Tensor, condition: Condition) -> list[Image.Image]:
        return pixels_to_images(self.pipeline.decode(latents, condition))

    def trainable(self) -> list[nn.Parameter]:
        return [parameter for parameter in self.pipeline.transformer.parameters() if parameter.requires_grad]

    def hold_reference(self) -> None:
        self._reference = [parameter.detach().clone() for parameter in self.trainable()]

    def save(self, folder: Path) -> None:
        """Write `model/` or `adapter/` (safetensors) into an artifact's folder."""
        if isinstance(self.pipeline.transformer, PeftModel):
            for config in self.pipeline.transformer.peft_config.values():
                config.base_model_name_or_path = None
            self.pipeline.transformer.save_pretrained(str(folder / ADAPTER))
            # peft adds a card with versions and places of its own; the artifact's record has them.
            (folder / ADAPTER / "README.md").unlink(missing_ok=True)
        else:
            save_pipeline(self.pipeline, folder / MODEL)

    @torch.no_grad()
    def _put(self, values: Sequence[Tensor]) -> None:
        for parameter, value in zip(self.trainable(), values, strict=True):
            parameter.copy_(value)


def _checkpoint(folder: Path) -> Path:
    """The folder of the weights: `folder/model`, `folder/adapter`, or `folder` itself."""
    for candidate in (folder / MODEL, folder / ADAPTER, folder):
        if (candidate / "model_index.json").is_file() or (candidate / "adapter_config.json").is_file():
            return candidate
    raise CheckpointError(
        f"{folder} holds neither {MODEL}/ nor {ADAPTER}/; give the artifact of warm_start_attacker or attacker_round"
    )


def _linear_layers(model: nn.Module) -> list[str]:
    return [name for name, layer in model.named_modules() if isinstance(layer, nn.Linear)]
