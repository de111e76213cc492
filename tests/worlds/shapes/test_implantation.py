"""Whatever is implanted, the truth stays and the protected boxes are not touched."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import ImageChops

from aot_core.contracts.prepare_data import EditWeights, ExtensionSettings, ImplantationSettings, ProceduralSettings
from aot_core.contracts.scene import DistractorFamily, Question, QuestionKind, Scene, SceneObject
from aot_core.worlds.extension import Rejection, check_extension
from aot_core.worlds.implantation import Implanted, random_kinds
from aot_core.worlds.instructions import read_instruction
from aot_core.worlds.shapes import world
from aot_core.worlds.shapes.extension import CHECKS, extend_world
from aot_core.worlds.shapes.implantation import implant_world
from aot_core.worlds.shapes.parser import parse_world
from aot_core.worlds.shapes.questions import ask_world
from aot_core.worlds.shapes.source import DrawnPicture, ProceduralSource
from aot_core.worlds.truth import truth

EXTENSION = ExtensionSettings()
SETTINGS = ImplantationSettings(edits=EditWeights(add=2, remove=1, replace=1))
KINDS: tuple[QuestionKind, ...] = ("existence", "attribute", "relation", "count")
FAMILIES: tuple[DistractorFamily, ...] = ("semantic", "irrelevant", "unseen")


def scene(seed: int) -> DrawnPicture:
    """A scene as the pipeline takes it: the first extension that passes the checks."""
    rng = np.random.default_rng(seed)
    source = ProceduralSource(ProceduralSettings(), seed).picture(0)
    while check_extension(CHECKS, source, extended := extend_world(rng, source, EXTENSION), EXTENSION) is not None:
        pass
    assert isinstance(extended.picture, DrawnPicture)
    return extended.picture


def implanted(
    seed: int, kind: QuestionKind, family: DistractorFamily
) -> tuple[DrawnPicture, Question, Implanted] | None:
    rng = np.random.default_rng(seed)
    picture = scene(seed)
    question = ask_world(rng, kind, picture.scene.objects)
    if question is None:
        return None
    made = implant_world(rng, picture, question, family, random_kinds(rng, SETTINGS), SETTINGS)
    return None if isinstance(made, Rejection) else (picture, question, made)


@st.composite
def any_scenes(draw: st.DrawFn) -> DrawnPicture:
    """Any scene that can be drawn, crowded ones and ones with several objects of one name among them."""
    cells = draw(st.lists(st.sampled_from(world.all_cells()), min_size=1, max_size=14, unique=True))
    names = st.tuples(st.sampled_from(sorted(world.COLOURS)), st.sampled_from(world.SHAPES))
    rng = np.random.default_rng(draw(st.integers(0, 2**31)))
    objects = tuple(
        world.place(rng, {"colour": colour, "shape": shape}, cell)
        for cell, (colour, shape) in ((cell, draw(names)) for cell in cells)
    )
    backdrop = world.random_backdrop(rng)
    scene = Scene(scene_id="any", source_id="any", width=world.SIZE, height=world.SIZE, objects=objects)
    return DrawnPicture(scene=scene, image=world.render(objects, backdrop), backdrop=backdrop)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
@given(
    picture=st.one_of(any_scenes(), st.builds(scene, st.integers(0, 2**31))),
    seed=st.integers(0, 2**31),
    kind=st.sampled_from(KINDS),
    family=st.sampled_from(FAMILIES),
    near=st.sampled_from([0.0, 0.5, 1.0]),
)
def test_every_accepted_edit_keeps_the_truth_and_the_protected_boxes(
    picture: DrawnPicture, seed: int, kind: QuestionKind, family: DistractorFamily, near: float
) -> None:
    rng = np.random.default_rng(seed)
    settings = SETTINGS.model_copy(update={"near": near})
    question = ask_world(rng, kind, picture.scene.objects)
    if question is None:
        return
    assert truth(question.query, picture.scene.objects) == question.answer_text
    made = implant_world(rng, picture, question, family, random_kinds(rng, settings), settings)
    if isinstance(made, Rejection):
        return
    objects = made.picture.scene.objects
    assert truth(question.query, objects) == question.answer_text
    for edit in made.edits:
        assert all(edit.region.overlap(box) == 0 for box in question.protected)
    # Every pixel that changed lies in an edit's region; what the objects say is what is painted.
    difference = ImageChops.difference(picture.image, made.picture.image)
    for edit in made.edits:
        box = edit.region
        difference.paste((0, 0, 0), (int(box.x), int(box.y), int(box.right), int(box.bottom)))
    assert difference.getbbox() is None
    read = Counter((world.cell_of(p.object.box), p.object.name) for p in parse_world(made.picture.image))
    assert read == Counter((world.cell_of(thing.box), thing.name) for thing in objects)


def test_distractors_stand_beside_what_the_question_is_about_where_they_shall() -> None:
    for near in (0.0, 1.0):
        beside = []
        for seed in range(150):
            rng, picture = np.random.default_rng(seed), scene(seed)
            question = ask_world(rng, "attribute", picture.scene.objects)
            if question is None:
                continue
            chosen = SETTINGS.model_copy(update={"near": near})
            made = implant_world(rng, picture, question, "semantic", ("add",), chosen)
            assert isinstance(made, Implanted)
            (edit,), (box,) = made.edits, question.protected
            one, other = world.cell_of(edit.region), world.cell_of(box)
            beside.append(max(abs(a - b) for a, b in zip(one, other, strict=True)) == 1)
        assert len(beside) > 80
        # At random fewer than half of the free cells are beside a given one; a cell in a corner has three neighbours.
        assert all(beside) if near else 0.2 < np.mean(beside) < 0.7


def test_where_every_negative_is_there_none_is_asked_about() -> None:
    objects = tuple(
        SceneObject(box=world.cell_box(cell), attributes={"colour": colour, "shape": "ring"})
        for cell, colour in zip(world.all_cells(), world.COLOURS, strict=False)
    )
    asked = [ask_world(np.random.default_rng(seed), "existence", objects) for seed in range(60)]
    assert None in asked
    assert {q.answer_text for q in asked if q is not None} == {"yes", "no"}


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
@given(seed=st.integers(0, 2**31), kind=st.sampled_from(KINDS), family=st.sampled_from(FAMILIES))
def test_families_are_what_they_are_called(seed: int, kind: QuestionKind, family: DistractorFamily) -> None:
    found = implanted(seed, kind, family)
    if found is None:
        return
    picture, question, made = found
    query = question.query
    words = {*query.target.values(), *query.reference.values()}
    for thing in picture.scene.objects:
        if thing.matches(query.target) or (query.reference and thing.matches(query.reference)):
            words |= set(thing.attributes.values())
    names = [thing.name for thing in made.picture.scene.objects]
    assert len(set(names)) == len(names)
    for edit in made.edits:
        for thing in filter(None, (edit.added, edit.removed)):
            shared = words & set(thing.attributes.values())
            assert bool(shared) == (family != "irrelevant")
        if edit.added:
            unseen = {*world.UNSEEN_COLOURS, *world.UNSEEN_SHAPES} & set(edit.added.attributes.values())
            assert len(unseen) == (1 if family == "unseen" else 0)


def test_instructions_say_what_was_done() -> None:
    seen: set[str] = set()
    for seed in range(120):
        found = implanted(seed, "existence", "semantic")
        if found is None:
            continue
        for edit in found[2].edits:
            (told,) = read_instruction(edit.instruction)
            anything = edit.removed or edit.added
            assert anything is not None
            assert told.kind == edit.kind
            assert told.where == world.cell_of(anything.box)
            assert told.removed == (edit.removed.name if edit.removed else None)
            assert told.added in (None, edit.added.name if edit.added else None)
            seen.add(f"{edit.kind}{' open' if edit.added and told.added is None else ''}")
    assert seen == {"add", "add open", "remove", "replace", "replace open"}


def test_the_first_cheat_is_impossible() -> None:
    """Answering "no" to "is there a red ring?" cannot be made wrong by adding a red ring."""
    tried = 0
    for seed in range(200):
        found = implanted(seed, "existence", "semantic")
        if found is None or found[1].answer_text == "yes":
            continue
        _, question, made = found
        assert not any(thing.matches(question.query.target) for thing in made.picture.scene.objects)
        tried += 1
    assert tried > 40


def test_a_full_scene_has_no_room() -> None:
    rng = np.random.default_rng(0)
    objects = world.random_objects(rng, 16)
    backdrop = world.Backdrop()
    picture = scene(0).with_objects(world.render(objects, backdrop), objects)
    question = ask_world(rng, "existence", objects)
    assert question is not None
    made = implant_world(rng, picture, question, "irrelevant", ("add",), SETTINGS)
    assert made == Rejection("no_room")


@pytest.mark.parametrize("least_most", [(1, 1), (2, 4)])
def test_the_number_of_edits_is_the_configs(least_most: tuple[int, int]) -> None:
    settings = ImplantationSettings(distractors=least_most)
    counts = {len(random_kinds(np.random.default_rng(seed), settings)) for seed in range(60)}
    assert counts == set(range(least_most[0], least_most[1] + 1))
