import dataclasses
from collections.abc import Mapping
from itertools import islice
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


def test_crowds_stand_beside_the_uncrowded_scenes_and_only_looking_is_taught_in_them() -> None:
    crowds = pretraining.Scenes(
        mixture={"where": 1, "what": 1}, object_counts=(9,), images=0.5, lessons=4, lookalikes=True
    )
    phase = dataclasses.replace(pretraining.ASK, images=2, lessons=4, crowds=crowds)
    shown = [len(images) for images, _ in islice(pretraining._lesson_batches(phase, 3), 60)]
    assert set(shown) == {2, 3} and 20 <= shown.count(3) <= 40  # a fraction is a chance
    for images, lessons in islice(pretraining._lesson_batches(phase, 3), 20):
        assert len(images) == len(lessons)
        for lesson in (lesson for of_crowd in lessons[2:] for lesson in of_crowd):
            assert lesson.prompt.startswith(("Where is the", "What is at row")) and "seen from" not in lesson.prompt
    objects, image = pretraining.lookalike_scene(np.random.default_rng(4), (9,))
    assert image.size == (world.SIZE, world.SIZE) and len({world.cell_of(thing.box) for thing in objects}) == 9
    colours, shapes = ({thing.attributes[axis] for thing in objects} for axis in ("colour", "shape"))
    assert (len(colours), len(shapes), len({thing.name for thing in objects})) == (3, 3, 9)


def test_a_phase_of_no_rate_leaves_the_language_model_as_it_was(untrained, tmp_path: Path) -> None:
    for part in untrained:
        part.save_pretrained(tmp_path)
    before = load_file(tmp_path / "model.safetensors")
    changed = {}
    for rate in (0.0, 0.3):
        phase = dataclasses.replace(pretraining.LOOK, steps=1, images=2, lessons=3, full_rate=rate)
        model, _ = pretraining.teach(tmp_path, phase, 1, NullTracker())
        model.save_pretrained(tmp_path / str(rate))
        after = load_file(tmp_path / str(rate) / "model.safetensors")
        changed[rate] = {name for name in before if not torch.equal(before[name], after[name])}
    assert not changed[0.0]
    assert changed[0.3] and not [name for name in changed[0.3] if ".visual." in f".{name}"]


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
