"""Distractors are cut from one photograph and pasted into another; questions are only asked where truth is settled."""

from collections import Counter
from collections.abc import Callable
from itertools import product
from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageChops

from aot_core.contracts.prepare_data import CocoSettings, ExtensionSettings, ImplantationSettings, PrepareDataConfig
from aot_core.contracts.scene import Box, DistractorFamily, EditKind, Query, Question, QuestionKind, Scene, SceneObject
from aot_core.worlds.extension import Rejection
from aot_core.worlds.implantation import Implanted
from aot_core.worlds.instructions import read_instruction
from aot_core.worlds.opening import world_from
from aot_core.worlds.photographs.coco import CocoSource
from aot_core.worlds.photographs.collage import add_things
from aot_core.worlds.photographs.extension import extend_photo
from aot_core.worlds.photographs.implantation import NEIGHBOURHOOD, cutouts, implant_photo, of_family, paste, room_for
from aot_core.worlds.photographs.places import PLACES, place_of, with_place
from aot_core.worlds.photographs.questions import ask_photo
from aot_core.worlds.photographs.spare import REACH, widened
from aot_core.worlds.sources import Picture
from aot_core.worlds.truth import truth

SETTINGS = ImplantationSettings(open_instructions=0.3)
KINDS: tuple[QuestionKind, ...] = ("existence", "attribute", "relation", "count")
EDITS: tuple[EditKind, ...] = ("add", "remove", "replace")
FAMILIES: tuple[DistractorFamily, ...] = ("semantic", "irrelevant")


def test_what_comes_along_stays_inside_the_region_to_the_last_fraction_of_a_pixel() -> None:
    saucer, cup = thing("saucer", 100.4, 100.4, 60.9, 40.9), thing("cup", 100.5, 100.5, 60.8, 40.8)
    cut = cutouts(picture_of(saucer, cup))[0]
    region = Box(x=239, y=259, width=61, height=41)
    for put in paste(picture_of(thing("dog", 10, 10), name="host"), cut, region).scene.objects[1:]:
        assert put.box.right <= region.right + 1e-9 and put.box.bottom <= region.bottom + 1e-9


@settings(
    max_examples=80,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    seed=st.integers(0, 2**31),
    kind=st.sampled_from(KINDS),
    family=st.sampled_from(FAMILIES),
    edits=st.lists(st.sampled_from(EDITS), min_size=1, max_size=3),
)
def test_every_accepted_edit_keeps_the_truth_and_the_protected_boxes(
    coco: Callable[..., Path],
    tmp_path: Path,
    seed: int,
    kind: QuestionKind,
    family: DistractorFamily,
    edits: list[EditKind],
) -> None:
    folder = tmp_path / "photographs"
    source = CocoSource(folder if folder.is_dir() else coco(), CocoSettings(type="coco"), tmp_path / "work")
    rng = np.random.default_rng(seed)
    donors = [cutout for index in range(4) for cutout in cutouts(source.picture(index))]
    picture = extend_photo(rng, source.picture(int(rng.integers(4))), ExtensionSettings()).picture
    question = ask_photo(rng, kind, picture, source.names)
    if question is None:
        return
    assert truth(question.query, picture.scene.objects) == question.answer_text
    made = implant_photo(rng, picture, question, family, edits, donors, source.kinds, SETTINGS)
    if isinstance(made, Rejection):
        return
    assert made.picture.settled(question.query) == truth(question.query, made.picture.scene.objects)
    assert made.picture.settled(question.query) == question.answer_text
    difference = ImageChops.difference(picture.image, made.picture.image)
    there = [thing.attributes["name"] for thing in made.picture.scene.objects]
    for edit in made.edits:
        box, added, removed = edit.region, edit.added, edit.removed
        wide = Box(x=max(0, box.x - REACH), y=max(0, box.y - REACH), width=box.width + REACH, height=box.height + REACH)
        assert all(wide.overlap(protected) == 0 for protected in question.protected)
        (told,) = read_instruction(edit.instruction)
        assert told.kind == edit.kind and told.where == place_of(removed.box if removed else box, picture.image.size)
        assert (removed is not None, added is not None) == (edit.kind != "add", edit.kind != "remove")
        if removed is not None:
            assert removed in picture.scene.objects and removed not in made.picture.scene.objects
            assert told.removed == removed.attributes["name"]
        if added is not None:
            # Cut from one photograph, pasted into another.
            assert added.attributes["name"] not in [thing.attributes["name"] for thing in picture.scene.objects]
            assert added.attributes.get("place") == place_of(box, picture.image.size)
            assert added.attributes["name"] in there
            assert told.added in (None, added.attributes["name"])
        difference.paste((0, 0, 0), (int(box.x), int(box.y), int(box.right), int(box.bottom)))
    assert difference.getbbox() is None


NAMES = ("dog", "cat", "ball", "left eye", "cup", "spoon")


@st.composite
def any_photographs(draw: st.DrawFn, name: str) -> Picture:
    """Any picture with any boxes: on top of each other, several of one name, some of them doubtful."""
    size = draw(st.sampled_from([(240, 180), (160, 200)]))
    rng = np.random.default_rng(draw(st.integers(0, 2**31)))
    ground = rng.integers(0, 256, (size[1] // 20, size[0] // 20, 3), dtype=np.uint8)
    things = []
    for _ in range(draw(st.integers(1, 7))):
        width, height = draw(st.integers(4, 90)), draw(st.integers(4, 90))
        x, y = draw(st.integers(0, size[0] - width)), draw(st.integers(0, size[1] - height))
        box = Box(x=x + 0.25, y=y, width=width - 0.5, height=height)
        things.append(with_place(SceneObject(box=box, attributes={"name": draw(st.sampled_from(NAMES))}), size))
    certain = draw(st.integers(1, len(things)))
    scene = Scene(scene_id=name, source_id=name, width=size[0], height=size[1], objects=tuple(things[:certain]))
    image = Image.fromarray(ground).resize(size, Image.Resampling.BICUBIC)
    return Picture(scene=scene, image=image, doubtful=tuple(things[certain:]))


@settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(
    host=any_photographs("host"),
    donor=any_photographs("donor"),
    seed=st.integers(0, 2**31),
    kind=st.sampled_from(KINDS),
    family=st.sampled_from(FAMILIES),
    edits=st.lists(st.sampled_from(EDITS), min_size=1, max_size=3),
    collage=st.booleans(),
)
def test_whatever_the_scene_an_accepted_edit_keeps_truth_and_protected_boxes(
    host: Picture,
    donor: Picture,
    seed: int,
    kind: QuestionKind,
    family: DistractorFamily,
    edits: list[EditKind],
    collage: bool,
) -> None:
    rng = np.random.default_rng(seed)
    donors = cutouts(donor)
    if collage:
        extension = ExtensionSettings(pasted=(1, 2))
        host = add_things(rng, extend_photo(rng, host, extension), donors, extension).picture
    question = ask_photo(rng, kind, host, NAMES)
    if question is None:
        return
    # Settled: no reading of what is doubtful gives another answer.
    assert truth(question.query, host.scene.objects) == question.answer_text
    assert truth(question.query, (*host.scene.objects, *host.doubtful)) == question.answer_text
    nearby = SETTINGS.model_copy(update={"near": 0.5})
    made = implant_photo(rng, host, question, family, edits, donors, {}, nearby)
    if isinstance(made, Rejection):
        return
    after = made.picture
    assert truth(question.query, after.scene.objects) == question.answer_text
    assert truth(question.query, (*after.scene.objects, *after.doubtful)) == question.answer_text
    difference = ImageChops.difference(host.image, after.image)
    for edit in made.edits:
        box = edit.region
        assert all(widened(box).overlap(protected) == 0 for protected in question.protected)
        difference.paste((0, 0, 0), (int(box.x), int(box.y), int(box.right), int(box.bottom)))
    assert difference.getbbox() is None


def test_a_collage_pastes_things_of_other_names_beside_the_photograph(
    coco: Callable[..., Path], tmp_path: Path
) -> None:
    source = CocoSource(coco(), CocoSettings(type="coco"), tmp_path / "work")
    donors = [cutout for index in range(4) for cutout in cutouts(source.picture(index))]
    settings = ExtensionSettings(scale=(1.6, 1.6), pasted=(2, 2))
    done: Counter[str] = Counter()
    for seed in range(12):
        rng, photo = np.random.default_rng(seed), source.picture(seed % 4)
        plain = extend_photo(rng, photo, settings)
        collage = add_things(rng, plain, donors, settings)
        pasted = collage.picture.scene.objects[len(plain.picture.scene.objects) :]
        names = [thing.attributes["name"] for thing in collage.picture.scene.objects]
        assert len(pasted) == 2 and len(set(names)) == len(names)
        assert all(thing.box.overlap(plain.original) == 0 and "place" in thing.attributes for thing in pasted)
        difference = ImageChops.difference(plain.picture.image, collage.picture.image)
        for thing in pasted:
            box = thing.box
            difference.paste((0, 0, 0), (int(box.x), int(box.y), int(box.right), int(box.bottom)))
        assert difference.getbbox() is None
        # What was pasted can be taken away again, or replaced.
        question = ask_photo(rng, "existence", collage.picture, source.names)
        assert question is not None
        for kind, family in product(("remove", "replace"), FAMILIES):
            made = implant_photo(rng, collage.picture, question, family, (kind,), donors, {}, SETTINGS)
            if isinstance(made, Implanted) and made.edits[0].removed in pasted:
                done[made.edits[0].kind] += 1
    assert done["remove"] >= 3 and done["replace"] >= 3
    assert add_things(np.random.default_rng(0), plain, donors, ExtensionSettings()) is plain
    config = PrepareDataConfig.model_validate(
        {"source": {"type": "coco"}, "extension": settings, "implantation": {"evaluated": ["semantic"]}}
    )
    domain = world_from("coco").open_domain(source, config, [0, 1])
    extended = domain.extend(np.random.default_rng(0), domain.picture(0))
    # Distractors and a collage's things come from the split's own photographs.
    assert {thing.attributes["name"][-1] for thing in extended.picture.scene.objects} == {"0", "1"}


def test_wrong_places_are_those_of_other_things_first() -> None:
    picture = picture_of(
        *(
            with_place(thing(name, x, y), (300, 300))
            for name, x, y in (("cup", 10, 10), ("spoon", 240, 10), ("fork", 130, 130), ("knife", 240, 240))
        )
    )
    for question in asked(picture, "attribute", ("cup",)):
        assert set(question.options) == {"upper left", "upper right", "centre", "lower right"}


def test_near_is_near(coco: Callable[..., Path], tmp_path: Path) -> None:
    source = CocoSource(coco(), CocoSettings(type="coco"), tmp_path / "work")
    cutout = next(c for c in cutouts(source.picture(1)) if c.main.attributes["name"] == "ball 1")
    ball = thing("ball", 130, 130)
    host = picture_of(ball, name="host")

    def gaps(near: list[Box]) -> list[float]:
        found = []
        for seed in range(40):
            box = room_for(np.random.default_rng(seed), host, cutout, [ball.box], near=near)
            assert box is not None
            found.append(
                max(box.x - ball.box.right, ball.box.x - box.right, box.y - ball.box.bottom, ball.box.y - box.bottom)
            )
        return found

    assert np.median(gaps([ball.box])) <= NEIGHBOURHOOD * 300 < np.median(gaps([]))


def picture_of(*things: SceneObject, doubtful: tuple[SceneObject, ...] = (), name: str = "a") -> Picture:
    scene = Scene(scene_id=name, source_id=name, width=300, height=300, objects=things)
    return Picture(scene=scene, image=Image.new("RGB", (300, 300), (90, 120, 60)), doubtful=doubtful)


def thing(name: str, x: float, y: float, width: float = 40, height: float = 40) -> SceneObject:
    return SceneObject(box=Box(x=x, y=y, width=width, height=height), attributes={"name": name})


def asked(picture: Picture, kind: QuestionKind, names: tuple[str, ...]) -> list[Question]:
    found = [ask_photo(np.random.default_rng(seed), kind, picture, names) for seed in range(60)]
    return [question for question in found if question is not None]


def test_absence_is_only_asked_of_what_cannot_be_there() -> None:
    names = ("person", "nose", "kite")
    plain = asked(picture_of(thing("person", 10, 10)), "existence", names)
    assert {q.query.target["name"] for q in plain} == {"person", "nose", "kite"}
    implied = picture_of(thing("person", 10, 10), doubtful=(thing("nose", 10, 10),))
    assert {q.query.target["name"] for q in asked(implied, "existence", names)} == {"person", "kite"}


def test_a_crowd_makes_counting_its_members_doubtful() -> None:
    crowd = picture_of(thing("person", 10, 10), doubtful=(thing("person", 100, 10, 90, 60),))
    assert asked(crowd, "count", ("person",)) == []
    assert {q.answer_text for q in asked(crowd, "existence", ("person",))} == {"yes"}


def test_names_give_no_answer_away() -> None:
    eyes = picture_of(thing("left eye", 40, 140), thing("right eye", 240, 140))
    assert asked(eyes, "relation", ("left eye", "right eye")) == []
    cups = picture_of(thing("cup", 40, 140), thing("spoon", 240, 140))
    assert {q.answer_text for q in asked(cups, "relation", ("cup", "spoon"))} == {"left", "right"}


def test_places_have_margins() -> None:
    assert len(PLACES) == 9
    assert place_of(Box(x=0, y=0, width=40, height=40), (300, 300)) == "upper left"
    assert place_of(Box(x=130, y=130, width=40, height=40), (300, 300)) == "centre"
    assert place_of(Box(x=240, y=120, width=40, height=60), (300, 300)) == "middle right"
    assert place_of(Box(x=80, y=130, width=40, height=40), (300, 300)) is None, "on a boundary"
    assert place_of(Box(x=70, y=130, width=160, height=40), (300, 300)) is None, "half as wide as the picture"


def test_a_cutout_brings_along_what_lies_in_it() -> None:
    saucer = thing("saucer", 100, 100, 100, 60)
    cup, spoon = thing("cup", 120, 110, 40, 40), thing("spoon", 180, 110, 60, 20)
    by_name = {cutout.main.attributes["name"]: cutout for cutout in cutouts(picture_of(saucer, cup, spoon))}
    cut = by_name["saucer"]
    assert cut.image.size == (100, 60)
    assert [t.attributes["name"] for t in cut.others] == ["cup"]
    assert cut.others[0].box == Box(x=20, y=10, width=40, height=40)
    assert [(t.attributes["name"], t.box.width) for t in cut.doubtful] == [("spoon", 20)]


def test_what_comes_along_may_not_change_the_truth() -> None:
    donor = picture_of(thing("saucer", 100, 100, 100, 60), thing("cup", 120, 110, 40, 40), name="donor")
    query = Query(kind="existence", target={"name": "cup"})
    question = Question(query=query, text="Is there a cup in the picture?", options=("yes", "no"), answer="B")
    saucer = [cutout for cutout in cutouts(donor) if cutout.main.attributes["name"] == "saucer"]
    host = picture_of(thing("dog", 10, 10), name="host")
    made = implant_photo(np.random.default_rng(0), host, question, "semantic", ("add",), saucer, {}, SETTINGS)
    assert made == Rejection("truth_changed")


def test_a_photograph_is_no_donor_to_itself_and_kinds_decide_the_family() -> None:
    donor = picture_of(thing("cat", 10, 10), thing("car", 200, 10), name="donor")
    host = picture_of(thing("dog", 100, 100), name="host")
    query = Query(kind="existence", target={"name": "dog"})
    question = Question(
        query=query,
        text="Is there a dog in the picture?",
        options=("yes", "no"),
        answer="A",
        protected=(host.scene.objects[0].box,),
    )
    kinds = {"cat": "animal", "dog": "animal", "car": "vehicle"}
    donors = [*cutouts(donor), *cutouts(host)]
    named = {
        family: [cutout.main.attributes["name"] for cutout in of_family(host, question, family, donors, kinds)]
        for family in FAMILIES
    }
    assert named == {"semantic": ["cat"], "irrelevant": ["car"]}


def test_where_everything_is_protected_there_is_no_room() -> None:
    host = picture_of(thing("dog", 0, 0, 300, 300), name="host")
    donor = picture_of(thing("cat", 10, 10), name="donor")
    query = Query(kind="existence", target={"name": "dog"})
    question = Question(
        query=query,
        text="Is there a dog in the picture?",
        options=("yes", "no"),
        answer="A",
        protected=(host.scene.objects[0].box,),
    )
    made = implant_photo(np.random.default_rng(0), host, question, "semantic", ("add",), cutouts(donor), {}, SETTINGS)
    assert made == Rejection("no_room")
    assert not isinstance(made, Implanted)
