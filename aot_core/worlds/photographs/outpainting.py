"""Scene extension by a diffusion model: any diffusers pipeline that inpaints or edits, by name.

    photograph on a larger canvas + what of it is new ----Outpainter----> the whole canvas painted

Which kind a pipeline is, its `__call__` tells: one that takes `mask_image` inpaints what is new; any other edits the
whole canvas by the prompt. Either way the photograph is put back afterwards, its edge feathered into what was painted
around it, so that what a question is about is the photograph's own pixels.
"""

import inspect
from typing import Any

import numpy as np
from PIL import Image, ImageChops, ImageFilter

from aot_core.contracts.prepare_data import ExtensionSettings
from aot_core.worlds.images import DataError

FEATHER = 8
"""Pixels over which the photograph's edge fades into what was painted."""
_MULTIPLE = 16
"""Latent pipelines need sides that are multiples of this many pixels."""


class DiffusersOutpainter:
    """A diffusers pipeline behind `worlds.protocol.Outpainter`."""

    def __init__(self, pipeline: Any, settings: ExtensionSettings, device: str = "cpu") -> None:
        self._pipeline, self._settings, self._device = pipeline.to(device), settings, device
        pipeline.set_progress_bar_config(disable=True)
        self._takes = set(inspect.signature(pipeline.__call__).parameters)
        if "image" not in self._takes or "prompt" not in self._takes:
            raise DataError(
                f"extension.editor: {type(pipeline).__name__} takes no `image` and `prompt`; name a pipeline that "
                "inpaints or edits images"
            )

    @classmethod
    def load(cls, name: str, settings: ExtensionSettings, device: str = "cpu") -> "DiffusersOutpainter":
        """Load a pipeline by folder or hub name. safetensors only."""
        import torch
        from diffusers.pipelines.pipeline_utils import DiffusionPipeline

        dtype = torch.bfloat16 if device.startswith("cuda") else torch.float32
        try:
            pipeline = DiffusionPipeline.from_pretrained(name, torch_dtype=dtype, use_safetensors=True)
        except (OSError, ValueError) as error:
            raise DataError(f"extension.editor: {name!r} cannot be loaded as a diffusers pipeline: {error}") from error
        return cls(pipeline, settings, device)

    def outpaint(self, canvas: Image.Image, new: Image.Image, seed: int) -> Image.Image:
        """See `Outpainter.outpaint`. The same seed gives the same picture on the same machine."""
        import torch

        width, height = (max(_MULTIPLE, round(side / _MULTIPLE) * _MULTIPLE) for side in canvas.size)
        size = (width, height)
        told: dict[str, Any] = {
            "prompt": self._settings.editor_prompt,
            "image": canvas.resize(size, Image.Resampling.LANCZOS),
            "mask_image": new.resize(size, Image.Resampling.NEAREST),
            "width": size[0],
            "height": size[1],
            "num_inference_steps": self._settings.editor_steps,
            "generator": torch.Generator(self._device).manual_seed(seed),
        }
        painted = self._pipeline(**{key: value for key, value in told.items() if key in self._takes}).images[0]
        painted = painted.convert("RGB").resize(canvas.size, Image.Resampling.LANCZOS)
        return Image.composite(painted, canvas, seam(new))


def seam(new: Image.Image, feather: int = FEATHER) -> Image.Image:
    """How much of the painting is shown: all outside the photograph, fading out over its outermost pixels (mode L)."""
    fading = new.filter(ImageFilter.MaxFilter(2 * (feather // 2) + 1)).filter(ImageFilter.GaussianBlur(feather / 4))
    return ImageChops.lighter(fading, new)


def new_part(size: tuple[int, int], corner: tuple[int, int], inner: tuple[int, int]) -> Image.Image:
    """255 where a canvas of `size` is not covered by `inner` (width, height) pixels at `corner`, else 0."""
    mask = np.full((size[1], size[0]), 255, dtype=np.uint8)
    mask[corner[1] : corner[1] + inner[1], corner[0] : corner[0] + inner[0]] = 0
    return Image.fromarray(mask)
