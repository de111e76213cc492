import dataclasses
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from aot_core.defender.answering import Defender
from aot_core.recipes import defender as pretraining
from aot_core.recipes.defender_lessons import draw_lesson
from aot_core.recipes.defender_skills import measure, table, write_card
from aot_core.tracking.protocol import NullTracker
from aot_core.worlds.shapes import world


class Recording(NullTracker):
    """Keeps the names of what was tracked."""

    def __init__(self) -> None:
        self.names: set[str] = set()

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        assert step is not None
        self.names |= set(metrics)


def test_the_recipe_goes_on_with_the_phase_it_was_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pretraining, "SEE_STEPS", 2)
    monkeypatch.setattr(pretraining, "SEE_IMAGES", 2)
    small = tuple(dataclasses.replace(p, steps=2, images=2, lessons=3) for p in pretraining.LANGUAGE_PHASES)
    monkeypatch.setattr(pretraining, "LANGUAGE_PHASES", small)
    monkeypatch.setattr(pretraining, "probe", lambda *_, **__: {})

    finished = pretraining.pretrain(tmp_path, 1, tracker := Recording())
    assert sorted(folder.name for folder in tmp_path.iterdir()) == ["1-ask", "1-look", "1-see"]
    assert {"see/loss", "look/loss", "ask/loss"} <= tracker.names
    first = load_file(finished / "model.safetensors")
    seen = (tmp_path / "1-see" / "model.safetensors").stat().st_mtime_ns

    (finished / "model.safetensors").unlink()
    finished.rename(tmp_path / "1-ask.unfinished")  # killed while it was saving
    again = load_file(pretraining.pretrain(tmp_path, 1, NullTracker()) / "model.safetensors")
    for name, weight in first.items():
        torch.testing.assert_close(again[name], weight, rtol=1e-4, atol=1e-6)
    assert (tmp_path / "1-see" / "model.safetensors").stat().st_mtime_ns == seen


def test_the_vision_tower_s_targets_name_what_each_cell_holds() -> None:
    objects = (
        world.place(np.random.default_rng(0), {"colour": "green", "shape": "ring"}, (1, 2)),
        world.place(np.random.default_rng(0), {"colour": "red", "shape": "diamond"}, (3, 0)),
    )
    contents = pretraining._contents(objects)
    assert contents.shape == (16, 2)
    assert contents[1 * 4 + 2].tolist() == [1, 6 + 3]
    assert contents[3 * 4 + 0].tolist() == [0, 6 + 5]
    assert (contents == 12).all(-1).sum() == 14  # the others are empty


def test_lessons_tell_the_truth() -> None:
    rng = np.random.default_rng(2)
    red_ring = world.place(rng, {"colour": "red", "shape": "ring"}, (0, 3))
    objects = (world.place(rng, {"colour": "blue", "shape": "cross"}, (2, 1)), red_ring)
    assert draw_lesson(rng, objects, "list").answer == "red ring, blue cross"  # type: ignore[union-attr]
    places = {"Where is the red ring?": "row 1, column 4", "Where is the blue cross?": "row 3, column 2"}
    for _ in range(40):
        where = draw_lesson(rng, objects, "where")
        assert where is not None and where.answer == places.get(where.prompt, "nowhere")
        existence = draw_lesson(rng, objects, "plain existence")
        assert existence is not None
        there = existence.prompt in ("Is there a red ring?", "Is there a blue cross?")
        assert existence.answer == ("yes" if there else "no")


def test_skills_are_measured_and_written_down(untrained, tmp_path: Path) -> None:
    model, processor = untrained
    model.save_pretrained(tmp_path)
    skills = measure(Defender(model, processor, max_new_tokens=2), n=2)
    kinds, families = ("attribute", "existence", "relation", "count"), ("semantic", "irrelevant")
    assert set(skills.accuracy) == {(k, f, d) for k in kinds for f in families for d in range(4)}
    assert all(skill.asked == 2 for skill in skills.accuracy.values())
    assert skills.overall("semantic", 3).asked == 8 and skills.boxed.asked == 4 * 7 * 2
    write_card(tmp_path, 7, skills)
    card = (tmp_path / "README.md").read_text()
    assert table(skills) in card and "--seed 7" in card
