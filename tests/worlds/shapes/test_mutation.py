"""A mutated edit differs from its parent in exactly one thing, and is as fair as a proposal."""

from collections.abc import Sequence
from typing import get_args

import numpy as np
import pytest

from aot_core.contracts.attack import Change
from aot_core.contracts.scene import Edit, EditKind, Query, Sample, Scene, SceneObject
from aot_core.worlds.instructions import read_instruction
from aot_core.worlds.questions import make_question
from aot_core.worlds.shapes import world
from aot_core.worlds.shapes.mutation import mutate
from aot_core.worlds.shapes.proposals import propose
from aot_core.worlds.truth import truth
from tests.worlds.shapes.test_proposals import Prior, sample

KINDS: tuple[EditKind, ...] = ("add", "add", "remove", "replace")


def parent(wanted: Sample, seed: int) -> list[Edit]:
    """Three edits as a checker reads them: what was painted is filled in."""
    rng = np.random.default_rng(seed)
    proposal = propose(rng, wanted, Prior(seed), edits=3, kinds=KINDS, named_share=1.0)
    edits = []
    for edit in proposal.edits:
        (told,) = read_instruction(edit.instruction)
        if told.added is not None:
            colour, shape = told.added.split()
            painted = world.place(rng, {"colour": colour, "shape": shape}, world.cell_of(edit.region))
            edit = edit.model_copy(update={"added": painted})
        edits.append(edit)
    return edits


def things(edits: Sequence[Edit]) -> list[tuple[str, ...]]:
    """What each edit does, in four words: kind, cell, colour and shape as told."""
    found = []
    for edit in edits:
        (told,) = read_instruction(edit.instruction)
        found.append((told.kind, str(told.where), *(told.added.split() if told.added else ("", ""))))
    return found


@pytest.mark.parametrize("change", get_args(Change))
@pytest.mark.parametrize("seed", range(10))
def test_a_child_differs_in_one_thing(change: Change, seed: int) -> None:
    wanted = sample(4, seed)
    edits = parent(wanted, seed)
    child = mutate(np.random.default_rng(seed), wanted, edits, change)
    if child is None:
        assert change == "move" and all(edit.kind != "add" for edit in edits)
        return
    before, after = things(edits), things(child.edits)
    if change == "more":
        assert after[:-1] == before and after[-1][0] == "add"
    elif change == "fewer":
        assert len(after) == 2 and [one for one in before if one in after] == after
    else:
        (changed,) = [(old, new) for old, new in zip(before, after, strict=True) if old != new]
        differs = [place for place, (old, new) in enumerate(zip(*changed, strict=True)) if old != new]
        assert differs == [1] if change == "move" else differs in ([2], [3])


@pytest.mark.parametrize("change", get_args(Change))
@pytest.mark.parametrize("seed", range(10))
def test_a_child_spares_what_is_asked_about_and_keeps_the_truth(change: Change, seed: int) -> None:
    wanted = sample(5, seed)
    child = mutate(np.random.default_rng(seed), wanted, parent(wanted, seed), change)
    if child is None:
        return
    assert len({world.cell_of(region) for region in child.regions}) == len(child.edits)
    for edit in child.edits:
        assert all(edit.region.overlap(box) == 0 for box in wanted.question.protected)
        taken = any(edit.region.overlap(thing.box) for thing in wanted.scene.objects)
        assert taken == (edit.kind != "add")
    edited = {world.cell_of(region) for region in child.regions}
    kept = [thing for thing in wanted.scene.objects if world.cell_of(thing.box) not in edited]
    painted = []
    for (_, _, colour, shape), region in zip(things(child.edits), child.regions, strict=True):
        if colour:
            painted.append(SceneObject(box=region, attributes={"colour": colour, "shape": shape}))
    assert truth(wanted.question.query, [*kept, *painted]) == wanted.question.answer_text


@pytest.mark.parametrize("seed", range(40))
def test_what_is_asked_about_is_never_painted(seed: int) -> None:
    """ "Is there a red ring?" where there is none: a blue ring may turn any colour but red."""
    objects = (SceneObject(box=world.cell_box((0, 0)), attributes={"colour": "blue", "shape": "square"}),)
    query = Query(kind="existence", target={"colour": "red", "shape": "ring"})
    question = make_question(np.random.default_rng(0), query, "Is there a red ring?", ["yes", "no"], objects)
    assert question is not None and question.answer_text == "no"
    scene = Scene(scene_id="scene", source_id="source", width=64, height=64, objects=objects)
    wanted = Sample(sample_id="s", split="train", scene=scene, question=question, image="images/s.png")
    painted = world.place(np.random.default_rng(0), {"colour": "blue", "shape": "ring"}, (2, 2))
    told = "Add a blue ring at row 3, column 3."
    edit = Edit(kind="add", instruction=told, family="semantic", region=world.cell_box((2, 2)), added=painted)
    child = mutate(np.random.default_rng(seed), wanted, [edit], "content")
    assert child is not None
    (now,) = read_instruction(child.edits[0].instruction)
    colour, shape = str(now.added).split()
    new = SceneObject(box=edit.region, attributes={"colour": colour, "shape": shape})
    assert truth(query, [*objects, new]) == "no"


def test_what_the_editor_chose_is_named() -> None:
    wanted = sample(3)
    open_edits = propose(np.random.default_rng(0), wanted, Prior(), edits=2).edits
    assert all(read_instruction(edit.instruction)[0].added is None for edit in open_edits)
    painted = [
        world.place(np.random.default_rng(0), {"colour": "green", "shape": shape}, world.cell_of(edit.region))
        for edit, shape in zip(open_edits, ("cross", "diamond"), strict=True)
    ]
    edits = [edit.model_copy(update={"added": thing}) for edit, thing in zip(open_edits, painted, strict=True)]
    child = mutate(np.random.default_rng(0), wanted, edits, "move")
    assert child is not None
    assert [read_instruction(edit.instruction)[0].added for edit in child.edits] == ["green cross", "green diamond"]


def test_the_bounds_hold() -> None:
    wanted = sample(4)
    edits = parent(wanted, 0)
    assert mutate(np.random.default_rng(0), wanted, edits, "more", bounds=(1, 3)) is None
    assert mutate(np.random.default_rng(0), wanted, edits, "fewer", bounds=(3, 4)) is None


def test_the_same_seed_gives_the_same_child() -> None:
    wanted = sample(4)
    edits = parent(wanted, 0)
    first, second = (mutate(np.random.default_rng(3), wanted, edits, "content") for _ in range(2))
    assert first == second
    others = [mutate(np.random.default_rng(seed), wanted, edits, "content") for seed in range(10)]
    assert any(other != first for other in others)
