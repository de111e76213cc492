"""The editors that one contract suite is run over, and what its tests have in common.

The shipped `aot-tiny-edit`, and Qwen-Image-Edit, its Plus and FLUX Kontext at tiny configs with random weights, saved
and loaded as the published ones are (`tiny_pipelines`). The fixtures stand in conftest.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.pipelines.qwenimage import pipeline_qwenimage_edit, pipeline_qwenimage_edit_plus
from PIL import Image
from tiny_pipelines import save_flux, save_qwen

from aot_core.attacker.editing import Attacker
from aot_core.attacker.flow_sde import ode_step
from aot_core.contracts.learning import EditorSettings, LoraSettings, ModelSettings
from aot_core.worlds.shapes import world

SETTINGS = EditorSettings(resolution=64, condition_resolution=32, max_prompt_tokens=32)
LORA = ModelSettings(lora=LoraSettings(rank=2, alpha=4))
SCENES = [world.render(world.random_objects(np.random.default_rng(i), 3), world.Backdrop()) for i in range(2)]
TOLD = [
    "Add a red ring at row 2, column 3.",
    "Remove the blue square at row 1, column 2. Add an object at row 4, column 4.",
]
BIG: dict[str, Callable[[Path], None]] = {
    "qwen": partial(save_qwen, plus=False),
    "qwen-plus": partial(save_qwen, plus=True),
    "flux": save_flux,
}
"""Editors that take `SETTINGS`, and what saves a tiny pipeline of that kind. A new one has a part in `stock`, too."""


@dataclass(frozen=True)
class Kind:
    name: str
    base: str
    settings: EditorSettings | None

    def load(self, settings: EditorSettings | None = None) -> Attacker:
        return Attacker.load(self.base, steps=3, settings=settings or self.settings)

    def learner(self, folder: Path | None = None) -> Attacker:
        return Attacker.load_trainable(self.base, folder, LORA, settings=self.settings)


def seeded(number: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(number)


def pixels(images: list[Image.Image]) -> np.ndarray:
    return np.stack([np.asarray(image, dtype=np.int16) for image in images])


def velocity_of(editor: Attacker) -> torch.Tensor:
    condition = editor.encode(SCENES, TOLD)
    with torch.no_grad():
        return editor.velocity(editor.noise(2, seeded()), torch.full((2,), 0.6), condition)


def nudge(editor: Attacker) -> None:
    """Change what learns, the same each time."""
    with torch.no_grad():
        for number, parameter in enumerate(editor.trainable()):
            parameter.add_(torch.randn(parameter.shape, generator=seeded(number)) * 0.05)


def stock(kind: Kind, editor: Attacker, monkeypatch: pytest.MonkeyPatch, **how: Any) -> Callable[[str], Any]:
    """The pipeline's own `__call__` on the first scene with our noise, 3 steps and our resolution."""
    noise = editor.noise(1, seeded(7))
    given: dict[str, Any] = {"num_inference_steps": 3, "latents": noise, **how}
    if kind.name == "tiny":
        return lambda output: editor.pipeline(SCENES[:1], TOLD[:1], output_type=output, **given).images
    if kind.name == "qwen":
        real = pipeline_qwenimage_edit.calculate_dimensions
        monkeypatch.setattr(pipeline_qwenimage_edit, "calculate_dimensions", lambda _, ratio: real(64 * 64, ratio))
    if kind.name == "qwen-plus":
        monkeypatch.setattr(pipeline_qwenimage_edit_plus, "VAE_IMAGE_SIZE", 64 * 64)
        monkeypatch.setattr(pipeline_qwenimage_edit_plus, "CONDITION_IMAGE_SIZE", 32 * 32)
        given |= {"height": 64, "width": 64}
    if kind.name == "flux":
        given |= {"height": 64, "width": 64, "max_area": 64 * 64, "_auto_resize": False}
        given |= {"guidance_scale": 2.5, "max_sequence_length": 32}
    elif "true_cfg_scale" not in how:
        given["true_cfg_scale"] = 1.0
    editor.pipeline.set_progress_bar_config(disable=True)
    return lambda output: editor.pipeline(image=SCENES[0], prompt=TOLD[0], output_type=output, **given).images


def ours(editor: Attacker) -> tuple[torch.Tensor, Image.Image]:
    condition = editor.encode(SCENES[:1], TOLD[:1])
    latents = editor.noise(1, seeded(7))
    with torch.no_grad():
        for time, next_time in pairwise(editor.sigmas(3).tolist()):
            latents = ode_step(latents, editor.velocity(latents, torch.tensor([time]), condition), time, next_time)
    return latents, editor.decode(latents, condition)[0]
