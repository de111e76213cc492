from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from aot_core.attacker.editing import Attacker
from aot_core.base_models.names import UnknownModelError
from aot_core.contracts.errors import CheckpointError
from aot_core.contracts.learning import LoraSettings, ModelSettings
from aot_core.worlds.shapes import world

SCENES = [world.render(world.random_objects(np.random.default_rng(i), 3), world.Backdrop()) for i in range(5)]
TOLD = ["Add an object at row 2, column 3."] * 5


def pixels(images: list[Image.Image]) -> np.ndarray:
    return np.stack([np.asarray(image) for image in images])


def test_the_same_seed_gives_the_same_edits_in_batches_of_any_size(attacker: Attacker):
    first = pixels(attacker.edit(SCENES, TOLD, seed=3))
    attacker.batch_size = 2
    assert np.abs(pixels(attacker.edit(SCENES, TOLD, seed=3)).astype(int) - first).max() <= 1
    assert first.shape == (5, 64, 64, 3)


def test_edit_takes_one_instruction_an_image(attacker: Attacker):
    with pytest.raises(ValueError, match="5 images but 1 instructions"):
        attacker.edit(SCENES, TOLD[:1], seed=0)


def test_a_saved_model_comes_back(attacker: Attacker, tmp_path: Path):
    attacker.save(tmp_path)
    loaded = Attacker.load("aot-tiny-edit", tmp_path, steps=4)
    assert np.array_equal(pixels(loaded.edit(SCENES, TOLD, seed=1)), pixels(attacker.edit(SCENES, TOLD, seed=1)))


def test_what_is_saved_does_not_depend_on_where_it_came_from(attacker: Attacker, tmp_path: Path):
    for place in ("here", "elsewhere"):
        attacker.save(tmp_path / place)
        Attacker.load("aot-tiny-edit", tmp_path / place).save(tmp_path / f"{place}-again")
    saved = [
        {str(path.relative_to(tmp_path / place)): path.read_bytes() for path in sorted((tmp_path / place).rglob("*.*"))}
        for place in ("here-again", "elsewhere-again")
    ]
    assert saved[0] == saved[1]


def test_lora_trains_a_small_adapter_that_is_saved_alone(attacker: Attacker, tmp_path: Path):
    attacker.save(tmp_path / "base")
    base = str(tmp_path / "base" / "model")
    settings = ModelSettings(lora=LoraSettings(rank=2, alpha=4))
    learner = Attacker.load_trainable(base, None, settings)
    assert 0 < sum(p.numel() for p in learner.trainable()) < sum(p.numel() for p in attacker.trainable())
    with torch.no_grad():
        for parameter in learner.trainable():
            parameter.add_(0.05)
    learner.save(tmp_path / "round1")
    assert sorted(p.name for p in (tmp_path / "round1").iterdir()) == ["adapter"]
    merged = Attacker.load(base, tmp_path / "round1", steps=learner.steps)
    again = Attacker.load_trainable(base, tmp_path / "round1", settings)
    expected = pixels(learner.edit(SCENES, TOLD, seed=1)).astype(int)
    assert np.abs(pixels(merged.edit(SCENES, TOLD, seed=1)) - expected).max() <= 1
    assert np.abs(pixels(again.edit(SCENES, TOLD, seed=1)) - expected).max() <= 1
    assert len(again.trainable()) == len(learner.trainable())


def adapted(attacker: Attacker, folder: Path, settings: ModelSettings) -> tuple[str, Attacker]:
    """The base's folder, and a learner with an adapter that has learned a little, saved in `folder/round1`."""
    attacker.save(folder / "base")
    base = str(folder / "base" / "model")
    learner = Attacker.load_trainable(base, None, settings)
    with torch.no_grad():
        for name, parameter in learner.pipeline.transformer.named_parameters():
            if "lora_B" in name:
                parameter.add_(0.002)
    learner.save(folder / "round1")
    return base, learner


def test_in_half_precision_the_attacker_that_edits_is_the_one_that_was_trained(attacker: Attacker, tmp_path: Path):
    """Merged, most of what an adapter has learned would be rounded away."""
    base, learner = adapted(attacker, tmp_path, ModelSettings(dtype="bfloat16", lora=LoraSettings(rank=2, alpha=4)))
    kept, merged = (Attacker.load(base, tmp_path / "round1", dtype="bfloat16", merge=merge) for merge in (False, True))
    condition = learner.encode(SCENES, TOLD)
    latents = learner.noise(5, torch.Generator().manual_seed(0))
    time = latents.new_full((5,), 0.5)
    with torch.no_grad():
        trained, loaded, rounded = (one.velocity(latents, time, condition) for one in (learner, kept, merged))
    assert torch.equal(loaded, trained)
    assert not torch.equal(rounded, trained)


def test_a_round_samples_without_dropout(attacker: Attacker, tmp_path: Path):
    """With it the same seed gave other edits, and a first pass's ratio was not 1."""
    settings = ModelSettings(lora=LoraSettings(rank=2, alpha=4, dropout=0.5))
    base, _ = adapted(attacker, tmp_path, settings)
    learner = Attacker.load_trainable(base, tmp_path / "round1", settings)
    assert learner.trainable()
    condition, latents = learner.encode(SCENES, TOLD), learner.noise(5, torch.Generator().manual_seed(0))
    with torch.no_grad():
        first, second = (learner.velocity(latents, latents.new_full((5,), 0.5), condition) for _ in range(2))
    assert torch.equal(first, second)


def test_lora_on_a_full_model_is_refused(attacker: Attacker, tmp_path: Path):
    attacker.save(tmp_path)
    with pytest.raises(CheckpointError, match=r"model\.lora"):
        Attacker.load_trainable(str(tmp_path / "model"), tmp_path, ModelSettings(lora=LoraSettings()))


def test_folders_without_an_attacker_are_named(tmp_path: Path):
    with pytest.raises(CheckpointError, match="neither model/ nor adapter/"):
        Attacker.load("aot-tiny-edit", tmp_path)
    with pytest.raises(UnknownModelError, match="does not exist"):
        Attacker.load(str(tmp_path / "nothing"))


def test_the_reference_velocity_is_that_of_the_held_weights(attacker: Attacker):
    condition = attacker.encode(SCENES, TOLD)
    latents, time = attacker.noise(5, torch.Generator().manual_seed(0)), torch.full((5,), 0.5)
    with torch.no_grad():
        held = attacker.velocity(latents, time, condition)
        attacker.hold_reference()
        for parameter in attacker.trainable():
            parameter.add_(0.1)
        moved = attacker.velocity(latents, time, condition)
    assert torch.equal(attacker.reference_velocity(latents, time, condition), held)
    with torch.no_grad():
        assert torch.equal(attacker.velocity(latents, time, condition), moved)
