"""Edits painted by hand, each breaking one rule."""

import numpy as np
import pytest
from PIL import Image, ImageDraw

from aot_core.contracts.attack import ValiditySettings
from aot_core.contracts.scene import Edit, Sample, SceneObject
from aot_core.worlds.instructions import add_instruction, remove_instruction
from aot_core.worlds.proposals import Proposal
from aot_core.worlds.shapes import world
from aot_core.worlds.shapes.check import WorldChecker

CHECKER = WorldChecker(ValiditySettings())


def add_at(cell: world.Cell) -> Proposal:
    told = add_instruction(None, cell)
    edit = Edit(kind="add", instruction=told, family="semantic", region=world.cell_box(cell))
    return Proposal(instruction=told, edits=(edit,))


def painted(sample: Sample, colour: str, shape: str, cell: world.Cell) -> Image.Image:
    thing = world.place(np.random.default_rng(1), {"colour": colour, "shape": shape}, cell)
    return world.render((*sample.scene.objects, thing), world.Backdrop())


def test_a_distractor_in_its_cell_is_valid(red_ring_sample: tuple[Sample, Image.Image]):
    sample, clean = red_ring_sample
    edited = painted(sample, "red", "circle", (3, 3))
    (verdict,) = CHECKER.check([sample], [add_at((3, 3))], [clean], [edited])
    assert verdict.valid
    assert verdict.ssim == pytest.approx(1.0)
    assert verdict.confidence > 0.99
    assert verdict.edits[0].added is not None
    assert verdict.edits[0].added.name == "red circle"
    assert sorted(thing.name for thing in verdict.objects) == ["blue square", "red circle", "red ring"]


def test_painting_the_answer_is_caught(red_ring_sample: tuple[Sample, Image.Image]):
    sample, _ = red_ring_sample
    objects = tuple(thing for thing in sample.scene.objects if thing.name != "red ring")
    # Without the ring the truth is "no", the second option's letter in whichever order.
    question = sample.question.model_copy(
        update={"answer": "B" if sample.question.answer == "A" else "A", "protected": (objects[0].box,)}
    )
    without = sample.model_copy(
        update={"scene": sample.scene.model_copy(update={"objects": objects}), "question": question}
    )
    clean = world.render(objects, world.Backdrop())
    cheat = painted(without, "red", "ring", (3, 3))
    fair = painted(without, "red", "cross", (3, 3))
    proposals = [add_at((3, 3))] * 2
    caught, kept = CHECKER.check([without] * 2, proposals, [clean] * 2, [cheat, fair])
    assert (caught.semantic, caught.truth_kept, caught.valid) == (True, False, False)
    assert kept.valid


def test_painting_between_the_answer_and_another_shape_is_caught(red_ring_sample: tuple[Sample, Image.Image]):
    sample, _ = red_ring_sample
    objects = tuple(thing for thing in sample.scene.objects if thing.name != "red ring")
    question = sample.question.model_copy(
        update={"answer": "B" if sample.question.answer == "A" else "A", "protected": (objects[0].box,)}
    )
    without = sample.model_copy(
        update={"scene": sample.scene.model_copy(update={"objects": objects}), "question": question}
    )
    clean = world.render(objects, world.Backdrop())
    circle, ring = (painted(without, "red", shape, (3, 3)) for shape in ("circle", "ring"))
    shares = np.linspace(0, 1, 41)
    blends = [Image.blend(circle, ring, float(share)) for share in shares]
    verdicts = CHECKER.check([without] * 41, [add_at((3, 3))] * 41, [clean] * 41, blends)
    read = [verdict.edits[0].added.name for verdict in verdicts if verdict.edits[0].added is not None]
    first = read.index("red ring")
    assert verdicts[0].valid
    assert read[first - 1] == "red circle", "the parser alone would let it pass"
    assert not verdicts[first - 1].truth_kept


def test_a_striped_texture_is_no_object(red_ring_sample: tuple[Sample, Image.Image]):
    sample, clean = red_ring_sample
    edited = clean.copy()
    draw = ImageDraw.Draw(edited)
    for x in range(48, 64, 4):
        draw.rectangle((x, 48, x + 1, 63), fill=(200, 30, 30))
    (verdict,) = CHECKER.check([sample], [add_at((3, 3))], [clean], [edited])
    assert verdict.intact
    assert verdict.confined
    assert not verdict.semantic


def test_an_edit_that_was_not_done_is_not_semantic(red_ring_sample: tuple[Sample, Image.Image]):
    sample, clean = red_ring_sample
    (verdict,) = CHECKER.check([sample], [add_at((3, 3))], [clean], [clean])
    assert verdict.confidence == 0.0


def test_painting_over_the_protected_object_breaks_integrity(red_ring_sample: tuple[Sample, Image.Image]):
    sample, clean = red_ring_sample
    edited = painted(sample, "red", "circle", (3, 3))
    ImageDraw.Draw(edited).rectangle((16, 16, 31, 31), fill=(205, 205, 205))
    (verdict,) = CHECKER.check([sample], [add_at((3, 3))], [clean], [edited])
    assert not verdict.intact


def test_painting_elsewhere_is_not_confined(red_ring_sample: tuple[Sample, Image.Image]):
    sample, clean = red_ring_sample
    edited = painted(sample, "red", "circle", (3, 3))
    ImageDraw.Draw(edited).rectangle((50, 0, 62, 12), fill=(20, 20, 200))
    (verdict,) = CHECKER.check([sample], [add_at((3, 3))], [clean], [edited])
    assert verdict.outside == pytest.approx(13 * 13 / 64**2)
    assert not verdict.confined


def test_a_removal_is_done_when_nothing_is_left(red_ring_sample: tuple[Sample, Image.Image]):
    sample, clean = red_ring_sample
    square: SceneObject = next(thing for thing in sample.scene.objects if thing.name == "blue square")
    told = remove_instruction(square.attributes, (3, 0))
    edit = Edit(kind="remove", instruction=told, family="semantic", region=world.cell_box((3, 0)), removed=square)
    proposal = Proposal(instruction=told, edits=(edit,))
    gone = world.render([t for t in sample.scene.objects if t is not square], world.Backdrop())
    done, undone = CHECKER.check([sample] * 2, [proposal] * 2, [clean] * 2, [gone, clean])
    assert done.valid
    assert [thing.name for thing in done.objects] == ["red ring"]
    assert not undone.semantic


def test_what_costs_more_than_the_cap_is_invalid(red_ring_sample: tuple[Sample, Image.Image]):
    sample, clean = red_ring_sample
    edited = painted(sample, "red", "square", (3, 3))
    (free,) = CHECKER.check([sample], [add_at((3, 3))], [clean], [edited])
    assert 0.01 < free.changed < 0.05  # one of sixteen cells at most
    for cap, valid in ((free.changed, True), (free.changed * 0.9, False)):
        (capped,) = WorldChecker(ValiditySettings(max_changed=cap)).check([sample], [add_at((3, 3))], [clean], [edited])
        assert (capped.affordable, capped.valid) == (valid, valid)
