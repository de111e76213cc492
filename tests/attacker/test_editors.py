"""The contract of every editor that can be an Attacker, on real pipelines of tiny size: one suite over all of them.

Which editors those are stands in `editor_kinds`; what the big ones have beyond the contract, in `test_big_editors`.
"""

import json
import shutil
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import PeftModel
from PIL import Image

from aot_core.attacker.adapters import EDITORS
from aot_core.attacker.editing import Attacker
from aot_core.attacker.flow_grpo import optimise, rollout
from aot_core.attacker.warm_start import encode_pairs, fit_pairs, pair_loss
from aot_core.base_models.names import SHIPPED
from aot_core.contracts.attacker_round import AttackerRoundConfig, SamplingSettings
from aot_core.contracts.errors import CheckpointError
from aot_core.contracts.learning import EditorSettings
from aot_core.contracts.scene import Edit, Sample
from aot_core.contracts.warm_start_attacker import WarmStartAttackerConfig
from aot_core.data.dataset import save_image
from aot_core.tracking.protocol import NullTracker
from aot_core.worlds.shapes import world
from tests.attacker.editor_kinds import (
    LORA,
    SCENES,
    SETTINGS,
    TOLD,
    Kind,
    nudge,
    ours,
    pixels,
    seeded,
    stock,
    velocity_of,
)


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


def test_an_edit_is_the_stock_pipelines_own(kind: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    # What the flow left alone is taken over from the source by ours alone.
    whole = SETTINGS.model_copy(update={"keep_source": False}) if kind.settings else None
    editor = kind.load(whole)
    call = stock(kind, editor, monkeypatch)
    latents, image = ours(editor)
    assert torch.allclose(latents, call("latent"), atol=1e-4)
    assert np.abs(pixels([image]) - pixels([call("pil")[0]])).max() <= 1


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


def test_in_half_precision_an_adapter_stays_beside_the_weights(kind: Kind, tmp_path: Path) -> None:
    settings = LORA.model_copy(update={"dtype": "bfloat16"})
    learner = Attacker.load_trainable(kind.base, None, settings, settings=kind.settings)
    nudge(learner)
    learner.save(tmp_path)
    loaded = Attacker.load(kind.base, tmp_path, dtype="bfloat16", steps=learner.steps)
    assert isinstance(loaded.pipeline.transformer, PeftModel)
    edits = [one.edit(SCENES[:1], TOLD[:1], seed=1) for one in (learner, loaded)]
    assert np.array_equal(*map(pixels, edits))


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


def test_another_size_is_refused_by_the_tiny_editor() -> None:
    with pytest.raises(ValueError, match="image is 80x48; this editor takes 64x64"):
        Attacker.load("aot-tiny-edit").edit([SCENES[0].resize((80, 48))], TOLD[:1], seed=0)


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
    assert set(EDITORS) >= {
        "TinyEditPipeline",
        "QwenImageEditPipeline",
        "QwenImageEditPlusPipeline",
        "FluxKontextPipeline",
    }
