"""Which pipelines are editors, and what each must be able to do.

An `EditorAdapter` drives one kind of diffusers pipeline piece by piece; everything about LoRA, references and artifacts
is `editing.Attacker`'s and the same for all. To add an editor (docs/extending.md): write its adapter (one with packed
latents derives from `packed.PackedEditor`), name it in `EDITORS`, and add to `tests/attacker/editor_kinds.py` what
saves a tiny pipeline of that kind (`BIG`) and how its own `__call__` is called (`stock`): the contract suite is run
over it.
"""

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, Self

import torch
from PIL import Image
from torch import Tensor

from aot_core.attacker.conditioning import Conditioning
from aot_core.attacker.tiny_edit import TinyEditPipeline, images_to_pixels, pixels_to_images, save_pipeline
from aot_core.contracts.base import Frozen
from aot_core.contracts.learning import DType, EditorSettings


class EditorAdapter(Protocol):
    """A flow editor's pieces. B edits; latents are (B, ...) of the editor's own shape; nothing in here trains."""

    pipeline: Any
    """With `transformer`, which an Attacker may wrap in an adapter, and `components`."""
    settings: EditorSettings | None
    """None where there is nothing to set."""

    @classmethod
    def load_pipeline(cls, source: str, dtype: torch.dtype) -> Any:
        """The pipeline from a folder or hub name."""
        ...

    def to(self, device: str) -> None: ...

    def encode(self, images: Sequence[Image.Image], instructions: Sequence[str]) -> Conditioning:
        """Images and an instruction each. Raises ValueError where the numbers differ."""
        ...

    def latents(self, images: Sequence[Image.Image]) -> Tensor:
        """Clean latents of images."""
        ...

    def sigmas(self, steps: int) -> Tensor:
        """(steps + 1,) flow times from 1 down to 0, shifted for the editor's resolution."""
        ...

    def noise(self, count: int, generator: torch.Generator) -> Tensor:
        """Standard normal latents, drawn on the CPU."""
        ...

    def velocity(self, latents: Tensor, time: Tensor, condition: Any) -> Tensor:
        """dx/dt at flow times (B,), with gradients to whatever in the transformer wants them."""
        ...

    def decode(self, latents: Tensor, condition: Any) -> list[Image.Image]:
        """Edits, each of its source's size."""
        ...

    def save(self, folder: Path) -> None:
        """Write the whole pipeline, as `load_pipeline` reads it."""
        ...


class TinyEditor:
    """`aot-tiny-edit` (an `EditorAdapter`)."""

    def __init__(self, pipeline: TinyEditPipeline, settings: EditorSettings | None) -> None:
        if settings is not None:
            raise ValueError("editor: aot-tiny-edit has nothing to set; leave `editor` out, or name a big attacker")
        self.pipeline = pipeline
        self.settings = None

    @classmethod
    def load_pipeline(cls, source: str, dtype: torch.dtype) -> TinyEditPipeline:
        return TinyEditPipeline.from_pretrained(source, dtype=dtype)

    def to(self, device: str) -> None:
        self.pipeline.to(device)

    def encode(self, images: Sequence[Image.Image], instructions: Sequence[str]) -> Conditioning:
        return self.pipeline.encode(images, instructions)

    @torch.no_grad()
    def latents(self, images: Sequence[Image.Image]) -> Tensor:
        transformer = self.pipeline.transformer
        return self.pipeline.vae.encode(images_to_pixels(images).to(transformer.device, transformer.dtype))

    def sigmas(self, steps: int) -> Tensor:
        return self.pipeline.sigmas(steps)

    def noise(self, count: int, generator: torch.Generator) -> Tensor:
        transformer = self.pipeline.transformer
        side = transformer.config["latent_size"]
        shape = (count, self.pipeline.vae.latent_channels, side, side)
        return torch.randn(shape, generator=generator).to(transformer.device, transformer.dtype)

    def velocity(self, latents: Tensor, time: Tensor, condition: Any) -> Tensor:
        return self.pipeline.velocity(latents, time, condition)

    def decode(self, latents: Tensor, condition: Any) -> list[Image.Image]:
        return pixels_to_images(self.pipeline.decode(latents, condition))

    def save(self, folder: Path) -> None:
        save_pipeline(self.pipeline, folder)


EDITORS = {
    "TinyEditPipeline": "aot_core.attacker.adapters:TinyEditor",
    "QwenImageEditPipeline": "aot_core.attacker.qwen_edit:QwenEditor",
    "QwenImageEditPlusPipeline": "aot_core.attacker.qwen_edit:QwenPlusEditor",
    "FluxKontextPipeline": "aot_core.attacker.flux_kontext:FluxKontextEditor",
}
"""Adapters by the class of their pipeline; imported when wanted, as the big ones take seconds."""


def load_adapter(pipeline_class: str) -> Any:
    """The adapter class for a pipeline class that stands in `EDITORS`."""
    module, _, name = EDITORS[pipeline_class].partition(":")
    return getattr(import_module(module), name)


def adapter_for(pipeline: Any, settings: EditorSettings | None) -> EditorAdapter:
    """The adapter around a loaded pipeline. Raises ValueError for settings that it cannot have."""
    return load_adapter(type(pipeline).__name__)(pipeline, settings)


class EditorFile(Frozen):
    """`editor.json` beside a big editor's weights: how it was driven when it was trained. aot-tiny-edit has none."""

    dtype: DType = "float32"
    settings: EditorSettings | None = None

    @classmethod
    def read(cls, folder: Path) -> Self:
        path = folder / "editor.json"
        return cls.model_validate_json(path.read_bytes()) if path.is_file() else cls()

    @classmethod
    def write(cls, folder: Path, adapter: EditorAdapter) -> None:
        if adapter.settings is not None:
            dtype: Any = str(adapter.pipeline.vae.dtype).removeprefix("torch.")
            text = cls(dtype=dtype, settings=adapter.settings).model_dump_json(indent=1)
            (folder / "editor.json").write_text(text + "\n")
