"""The contract of every editor that can be an Attacker, on real pipelines of tiny size: one suite over all of them.

The shipped `aot-tiny-edit`, and Qwen-Image-Edit, its Plus and FLUX Kontext at tiny configs with random weights, saved
and loaded as the published ones are.
"""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.pipelines.qwenimage import pipeline_qwenimage_edit, pipeline_qwenimage_edit_plus
from PIL import Image
from tiny_pipelines import save_flux, save_qwen

from aot_core.attacker.adapters import EDITORS
from aot_core.attacker.editing import Attacker, CheckpointError
from aot_core.attacker.flow_grpo import optimise, rollout
from aot_core.attacker.flow_sde import ode_step
from aot_core.attacker.frames import fit, restore
from aot_core.attacker.warm_start import encode_pairs, fit_pairs, pair_loss
from aot_core.contracts.attacker_round import AttackerRoundConfig, SamplingSettings
from aot_core.contracts.errors import NonFiniteLossError
from aot_core.contracts.learning import EditorSettings, LoraSettings, ModelSettings
from aot_core.contracts.scene import Edit, Sample
from aot_core.contracts.warm_start_attacker import WarmStartAttackerConfig
from aot_core.data import world
from aot_core.data.dataset import save_image
from aot_core.models import SHIPPED
from aot_core.tracking.protocol import NullTracker

SETTINGS = EditorSettings(resolution=64, condition_resolution=32, max_prompt_tokens=32)
LORA = ModelSettings(lora=LoraSettings(rank=2, alpha=4))
SCENES = [world.render(world.random_objects(np.random.default_rng(i), 3), world.Backdrop()) for i in range(2)]
TOLD = [
    "Add a red ring at row 2, column 3.",
    "Remove the blue square at row 1, column 2. Add an object at row 4, column 4.",
]
BIG = ["qwen", "qwen-plus", "flux"]


@dataclass(frozen=True)
class Kind:
    name: str
    base: str
    settings: EditorSettings | None

    def load(self, settings: EditorSettings | None = None) -> Attacker:
        return Attacker.load(self.base, steps=3, settings=settings or self.settings)

    def learner(self, folder: Path | None = None) -> Attacker:
        return Attacker.load_trainable(self.base, folder, LORA, settings=self.settings)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    root = tmp_path_factory.mktemp("pipelines")

    def folder(name: str) -> Path:
        if not (root / name).exists():
            save_flux(root / name) if name == "flux" else save_qwen(root / name, plus=name == "qwen-plus")
        return root / name

    return folder


@pytest.fixture(scope="module", params=["tiny", *BIG])
def kind(request: pytest.FixtureRequest, folders: Callable[[str], Path]) -> Kind:
    if request.param == "tiny":
        return Kind("tiny", "aot-tiny-edit", None)
    return Kind(request.param, str(folders(request.param)), SETTINGS)


@pytest.fixture(scope="module")
def editor(kind: Kind) -> Attacker:
    """As loaded; tests leave it as it is."""
    return kind.load()


@pytest.fixture(scope="module", params=BIG)
def big(request: pytest.FixtureRequest, folders: Callable[[str], Path]) -> Kind:
    return Kind(request.param, str(folders(request.param)), SETTINGS)


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


def test_the_pieces_fit_and_repeat_themselves(editor: Attacker) -> None:
    condition = editor.encode(SCENES, TOLD)
    noise = editor.noise(2, seeded())
    assert len(condition) == 2
    assert noise.shape == condition.source.shape == editor.latents(SCENES).shape
    assert torch.equal(noise, editor.noise(2, seeded()))
    assert abs(float(editor.noise(64, seeded(1)).std()) - 1) < 0.05
    velocity = velocity_of(editor)
    assert velocity.shape == noise.shape
    assert velocity.dtype == torch.float32
    assert torch.equal(velocity, velocity_of(editor))
    assert torch.allclose(editor.latents(SCENES[:1])[0], condition.source[0], atol=1e-4)
    assert [image.size for image in editor.decode(noise, condition)] == [(64, 64)] * 2


def test_flow_times_fall_from_one_to_zero(editor: Attacker) -> None:
    sigmas = editor.sigmas(5).tolist()
    assert len(sigmas) == 6
    assert (sigmas[0], sigmas[-1]) == (pytest.approx(1.0), 0.0)
    assert all(later < earlier for earlier, later in pairwise(sigmas))


def test_conditions_are_repeated_group_after_group_and_selected_by_number(editor: Attacker) -> None:
    condition = editor.encode(SCENES, TOLD)
    noise, times = editor.noise(4, seeded()), torch.full((4,), 0.3)
    with torch.no_grad():
        group = editor.velocity(noise, times, condition.repeat(2))
        ones = [
            editor.velocity(noise[i : i + 1], times[:1], condition.select(torch.tensor([i // 2]))) for i in range(4)
        ]
    assert torch.allclose(group, torch.cat(ones), atol=1e-4)


def test_an_edit_does_not_depend_on_its_neighbours_prompt(editor: Attacker) -> None:
    """Prompts of unequal lengths in a batch: what pads the shorter one must not be read."""
    together = velocity_of(editor)
    with torch.no_grad():
        alone = editor.velocity(editor.noise(2, seeded())[:1], torch.tensor([0.6]), editor.encode(SCENES[:1], TOLD[:1]))
    assert torch.allclose(together[:1], alone, atol=1e-4)


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


def test_an_edit_is_the_stock_pipelines_own(kind: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    # What the flow left alone is taken over from the source by ours alone.
    whole = SETTINGS.model_copy(update={"keep_source": False}) if kind.settings else None
    editor = kind.load(whole)
    call = stock(kind, editor, monkeypatch)
    latents, image = ours(editor)
    assert torch.allclose(latents, call("latent"), atol=1e-4)
    assert np.abs(pixels([image]) - pixels([call("pil")[0]])).max() <= 1


def test_guidance_is_the_stock_pipelines_own(big: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    editor = big.load(SETTINGS.model_copy(update={"true_cfg_scale": 4.0}))
    latents, _ = ours(editor)
    call = stock(big, editor, monkeypatch, true_cfg_scale=4.0, negative_prompt=" ")
    assert torch.allclose(latents, call("latent"), atol=1e-3)
    assert not torch.allclose(latents, ours(big.load())[0], atol=1e-2)


def test_gradients_reach_the_adapter_and_nothing_else(kind: Kind) -> None:
    learner = kind.learner()
    condition = learner.encode(SCENES, TOLD)
    learner.velocity(learner.noise(2, seeded()), torch.full((2,), 0.6), condition).pow(2).sum().backward()
    names = [name for name, parameter in learner.pipeline.transformer.named_parameters() if parameter.grad is not None]
    assert names
    assert all("lora_" in name for name in names)
    assert any(bool(parameter.grad.any()) for parameter in learner.trainable() if parameter.grad is not None)
    others = [part for name, part in learner.pipeline.components.items() if name != "transformer"]
    modules = [part for part in others if isinstance(part, torch.nn.Module)]
    assert all(parameter.grad is None for module in modules for parameter in module.parameters())


def test_the_reference_is_the_attacker_that_the_round_began_with(kind: Kind) -> None:
    """Twice: with a fresh adapter (the first round), and with one that has learned (a later round)."""
    learner = kind.learner()
    for _ in range(2):
        learner.hold_reference()
        trained = [id(parameter) for parameter in learner.trainable()]
        began = velocity_of(learner)
        nudge(learner)
        condition, noise, times = learner.encode(SCENES, TOLD), learner.noise(2, seeded()), torch.full((2,), 0.6)
        assert torch.allclose(learner.reference_velocity(noise, times, condition), began, atol=1e-6)
        assert not torch.allclose(velocity_of(learner), began, atol=1e-4)
        assert [id(parameter) for parameter in learner.trainable()] == trained


def test_an_adapter_comes_back_without_its_reference(kind: Kind, tmp_path: Path) -> None:
    learner = kind.learner()
    nudge(learner)
    learner.hold_reference()
    expected = velocity_of(learner)
    learner.save(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["adapter"]
    assert not any(path.is_dir() for path in (tmp_path / "adapter").iterdir())
    merged = Attacker.load(kind.base, tmp_path)
    assert merged.adapter.settings == kind.settings  # from the artifact
    again = Attacker.load_trainable(kind.base, tmp_path, LORA)
    assert torch.allclose(velocity_of(merged), expected, atol=1e-4)
    assert torch.allclose(velocity_of(again), expected, atol=1e-6)
    assert len(again.trainable()) == len(learner.trainable())


def test_a_whole_editor_comes_back(kind: Kind, editor: Attacker, tmp_path: Path) -> None:
    editor.save(tmp_path)
    assert not list(tmp_path.rglob("*.bin"))
    assert torch.equal(velocity_of(Attacker.load(kind.base, tmp_path)), velocity_of(editor))


def test_flow_grpo_trains_it(kind: Kind) -> None:
    learner = kind.learner()
    config = AttackerRoundConfig(
        sampling=SamplingSettings(steps=3, sde_steps=2), group_size=2, micro_batch=3, iterations=2, kl=0.1
    )
    learner.hold_reference()
    optimizer = torch.optim.AdamW(learner.trainable(), lr=1e-2)
    generator = seeded()
    before = velocity_of(learner)
    for _ in range(2):
        condition_P = learner.encode(SCENES, TOLD)
        edits = rollout(learner, condition_P, 2, config.sampling, generator, with_reference=True)
        assert [image.size for image in learner.decode(edits.latents, edits.condition)] == [(64, 64)] * 4
        metrics = optimise(learner, edits, torch.tensor([[1.0, 0.0], [0.2, 0.5]]), config, optimizer)
        assert metrics["flat_groups"] == 0
        assert metrics["grad_norm"] > 0
    assert metrics["kl"] > 0
    assert not torch.allclose(velocity_of(learner), before, atol=1e-4)


def test_warm_start_fits_it(kind: Kind, red_ring_sample: tuple[Sample, Image.Image], tmp_path: Path) -> None:
    learner = kind.learner()
    clean, _ = red_ring_sample
    edit = Edit(kind="add", instruction=TOLD[0], family="semantic", region=world.cell_box((1, 2)))
    pairs = [
        clean.model_copy(
            update={
                "sample_id": f"s{number}",
                "split": "warm_start",
                "edits": (edit,),
                "image": save_image(tmp_path, f"{number}-clean", SCENES[0]),
                "edited_image": save_image(tmp_path, f"{number}-edited", SCENES[1]),
            }
        )
        for number in range(2)
    ]
    config = WarmStartAttackerConfig(updates=30, batch_size=2, learning_rate=3e-3, warmup_ratio=0.0, model=LORA)
    batch = encode_pairs(learner, tmp_path, pairs, config, np.random.default_rng(0))[0]

    def on_fixed_noise() -> float:  # a curve's own losses differ more by their times and noise than by what was learned
        generator = seeded(7)
        with torch.no_grad():
            return float(np.mean([float(pair_loss(learner, batch, 1.0, generator)) for _ in range(16)]))

    before = on_fixed_noise()
    curve = fit_pairs(learner, tmp_path, pairs, config, np.random.default_rng(0), NullTracker())
    assert len(curve) == 30
    assert on_fixed_noise() < before * 0.99


def test_images_of_any_size_keep_it(big: Kind) -> None:
    sizes = [(80, 48), (33, 90), (64, 64), (200, 160)]
    images = [SCENES[0].resize(size) for size in sizes]
    edited = big.load().edit(images, TOLD[:1] * 4, seed=1)
    assert [image.size for image in edited] == sizes


def test_another_size_is_refused_by_the_tiny_editor() -> None:
    with pytest.raises(ValueError, match="image is 80x48; this editor takes 64x64"):
        Attacker.load("aot-tiny-edit").edit([SCENES[0].resize((80, 48))], TOLD[:1], seed=0)


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


def test_settings_that_cannot_be_are_named() -> None:
    with pytest.raises(ValueError, match="editor: aot-tiny-edit has nothing to set"):
        Attacker.load("aot-tiny-edit", settings=SETTINGS)
    with pytest.raises(ValueError, match="resolution"):
        EditorSettings(resolution=100)


def test_a_pipeline_that_nobody_drives_is_named(tmp_path: Path) -> None:
    shutil.copytree(SHIPPED / "aot-tiny-edit", tmp_path / "other")
    index = tmp_path / "other" / "model_index.json"
    index.write_text(json.dumps({**json.loads(index.read_text()), "_class_name": "StableDiffusionPipeline"}))
    with pytest.raises(CheckpointError, match=r"StableDiffusionPipeline.*QwenImageEditPipeline"):
        Attacker.load(str(tmp_path / "other"))
    assert set(EDITORS) == {
        "TinyEditPipeline",
        "QwenImageEditPipeline",
        "QwenImageEditPlusPipeline",
        "FluxKontextPipeline",
    }
