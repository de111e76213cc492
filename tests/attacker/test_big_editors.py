"""What the big editors alone have: guidance, frames for images of any size, encodings kept, parts kept on the CPU."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from aot_core.attacker.editing import Attacker
from aot_core.attacker.frames import fit, restore
from aot_core.contracts.errors import NonFiniteLossError
from tests.attacker.editor_kinds import SCENES, SETTINGS, TOLD, Kind, ours, seeded, stock


def test_guidance_is_the_stock_pipelines_own(big: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    editor = big.load(SETTINGS.model_copy(update={"true_cfg_scale": 4.0}))
    latents, _ = ours(editor)
    call = stock(big, editor, monkeypatch, true_cfg_scale=4.0, negative_prompt=" ")
    assert torch.allclose(latents, call("latent"), atol=1e-3)
    assert not torch.allclose(latents, ours(big.load())[0], atol=1e-2)


def test_images_of_any_size_keep_it(big: Kind) -> None:
    sizes = [(80, 48), (33, 90), (64, 64), (200, 160)]
    images = [SCENES[0].resize(size) for size in sizes]
    edited = big.load().edit(images, TOLD[:1] * 4, seed=1)
    assert [image.size for image in edited] == sizes


@pytest.mark.parametrize("size", [(64, 64), (640, 480), (333, 512), (97, 31)])
def test_a_frame_gives_back_what_was_put_into_it(size: tuple[int, int]) -> None:
    gradient = np.linspace(0, 255, size[0])[None, :, None].repeat(size[1], 0).repeat(3, 2).astype(np.uint8)
    back = restore(fit(Image.fromarray(gradient), 128), size)
    assert back.size == size
    assert np.abs(np.asarray(back, dtype=np.int16) - gradient).mean() < 3


def test_untouched_latents_keep_the_sources_pixels(big: Kind) -> None:
    editor = big.load()
    image = SCENES[0].resize((80, 48))
    condition = editor.encode([image], TOLD[:1])
    assert np.array_equal(np.asarray(editor.decode(condition.source, condition)[0]), np.asarray(image))
    changed = condition.source.clone()
    changed[:, 10] += 3.0  # row 2, column 2 of 4
    edited = np.asarray(editor.decode(changed, condition)[0], dtype=np.int16)
    differs = np.abs(edited - np.asarray(image, dtype=np.int16)).max(-1) > 0
    assert differs[:, 40:60].any()
    assert not differs[:, :15].any()


def test_everything_is_encoded_once_and_kept(big: Kind) -> None:
    editor = big.load()
    encoder: Any = editor.adapter
    first = editor.encode([SCENES[0]] * 3, [TOLD[0], TOLD[1], TOLD[0]])
    assert encoder.cache.made == 3  # a source, two prompts
    again = editor.encode(SCENES[:1], TOLD[:1])
    assert encoder.cache.made == 3
    assert torch.equal(first.source[2], again.source[0])
    forgetful = big.load(SETTINGS.model_copy(update={"cached_encodings": 0}))
    assert torch.equal(forgetful.encode([SCENES[0]] * 3, [TOLD[0], TOLD[1], TOLD[0]]).source, first.source)


def test_with_offload_reader_and_autoencoder_only_visit_the_device(big: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    """No second device is here: what is asked of every part is written down."""
    editor = big.load(SETTINGS.model_copy(update={"offload": True}))
    asked: list[tuple[str, str]] = []
    for name, part in editor.pipeline.components.items():
        if isinstance(part, torch.nn.Module):
            move = part.to
            monkeypatch.setattr(
                part, "to", lambda device, name=name, move=move: (asked.append((name, str(device))), move("cpu"))[1]
            )
    encoder: Any = editor.adapter
    encoder.device = torch.device("cpu", 0)
    condition = editor.encode(SCENES[:1], TOLD[:1])
    visitors = ["vae", *encoder.text_encoders]
    assert asked == [(name, "cpu:0") for name in visitors] + [(name, "cpu") for name in visitors]
    asked.clear()
    editor.decode(editor.noise(1, seeded()), condition)
    assert asked == [("vae", "cpu:0"), ("vae", "cpu")]


@pytest.mark.parametrize("name", ["qwen", "qwen-plus"])
def test_image_tokens_have_rows_and_columns(
    name: str, folders: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """transformers 5 skips the 3D positions where nobody says which tokens are the image's, and diffusers does not."""
    editor = Attacker.load(str(folders(name)), settings=SETTINGS)
    reader = editor.pipeline.text_encoder.model
    found: list[torch.Tensor | None] = []
    compute = reader.compute_3d_position_ids

    def watched(**given: Any) -> torch.Tensor | None:
        found.append(compute(**given))
        return found[-1]

    monkeypatch.setattr(reader, "compute_3d_position_ids", watched)
    editor.encode(SCENES[:1], TOLD[:1])
    (positions,) = found
    assert positions is not None
    time, row, column = positions[:, 0]
    assert not torch.equal(row, column)
    assert not torch.equal(time, row)


def test_latents_that_are_not_finite_are_an_error(big: Kind) -> None:
    editor = big.load()
    condition = editor.encode(SCENES[:1], TOLD[:1])
    with pytest.raises(NonFiniteLossError, match="not finite"):
        editor.decode(torch.full_like(condition.source, float("nan")), condition)
