"""Files as exporters write them, which COCO's own tools read: they are read here too, and to the same truths."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aot_core.contracts.prepare_data import CocoSettings
from aot_core.contracts.scene import Box, Question
from aot_core.worlds.images import DataError
from aot_core.worlds.photographs.annotated import checked_box
from aot_core.worlds.photographs.coco import CocoSource
from aot_core.worlds.photographs.implantation import cutouts, of_family, paste
from aot_core.worlds.photographs.questions import ask_photo
from aot_core.worlds.sources import Picture

Coco = Callable[..., Path]
Spoil = Callable[[dict[str, Any]], None]


def opened(folder: Path, **settings: Any) -> CocoSource:
    return CocoSource(folder, CocoSettings(type="coco", **settings), folder.parent / "work")


def asked(picture: Picture, kind: Any, names: tuple[str, ...], count: int = 120) -> list[Question]:
    found = [ask_photo(np.random.default_rng(seed), kind, picture, names) for seed in range(count)]
    return [question for question in found if question is not None]


# Folders


@pytest.mark.parametrize("images", [".", "", "./"])
@pytest.mark.parametrize("name", ["images/{}", r"images\{}", "./images/{}"])
def test_file_names_may_hold_the_folder_in_either_spelling(coco: Coco, images: str, name: str) -> None:
    def spoil(instances: dict[str, Any]) -> None:
        for image in instances["images"]:
            image["file_name"] = name.format(image["file_name"])

    source = opened(coco(spoil=spoil), images=images)
    assert source.size == 4 and [source.picture(i).scene.source_id for i in range(4)] == ["0-0", "1-1", "2-2", "3-3"]


def test_pictures_may_lie_beside_the_file(coco: Coco) -> None:
    folder = coco()
    for picture in (folder / "images").iterdir():
        shutil.move(picture, folder)
    with pytest.raises(DataError, match=r"set source\.images to that folder \(\"\.\" for the source folder itself\)"):
        opened(folder)
    assert opened(folder, images=".").size == 4


def test_a_folder_that_stands_twice_is_named(coco: Coco) -> None:
    def spoil(instances: dict[str, Any]) -> None:
        for image in instances["images"]:
            image["file_name"] = f"images/{image['file_name']}"

    with pytest.raises(DataError, match=r"it lies in .*photographs, so set source\.images"):
        opened(coco(spoil=spoil))


def test_a_backslash_may_be_part_of_a_name_and_never_climbs_out(coco: Coco) -> None:
    folder = coco(spoil=lambda instances: instances["images"][1].update(file_name=r"a\b.png"))
    (folder / "images/1.png").rename(folder / "images" / r"a\b.png")
    assert opened(folder).size == 4
    (folder / "instances.json").unlink()
    shutil.rmtree(folder)
    shutil.rmtree(folder.parent / "work")
    folder = coco(spoil=lambda instances: instances["images"][1].update(file_name=r"..\..\secret.png"))
    (folder.parent / "secret.png").write_bytes(b"")
    with pytest.raises(DataError, match="does not lie inside"):
        opened(folder)


def test_one_photograph_under_two_spellings_is_there_twice(coco: Coco) -> None:
    def spoil(instances: dict[str, Any]) -> None:
        instances["images"][1]["file_name"] = "./0.png"

    with pytest.raises(DataError, match=r"images\[1\]\.file_name: '0\.png' appears twice"):
        opened(coco(spoil=spoil))


def test_a_file_name_is_never_shortened_to_another_file_s(coco: Coco) -> None:
    """train/1.png is not 1.png: its boxes would stand on another picture."""
    folder = coco(spoil=lambda instances: instances["images"][1].update(file_name="train/1.png"))
    with pytest.raises(DataError, match=r"'train/1\.png' is missing"):
        opened(folder)


def test_the_name_may_be_the_end_of_the_address(coco: Coco) -> None:
    def spoil(instances: dict[str, Any]) -> None:
        for image in instances["images"]:
            image["coco_url"] = f"http://images.cocodataset.org/train2017/{image.pop('file_name')}"

    folder = coco(spoil=spoil)
    assert opened(folder).size == 4
    shutil.rmtree(folder.parent / "work")
    (folder / "train2017").mkdir()
    for picture in (folder / "images").iterdir():
        shutil.move(picture, folder / "train2017")
    assert opened(folder, images=".").picture(2).scene.source_id == "2-2"


# Boxes


@pytest.mark.parametrize(
    ("box", "cut"),
    [
        ((-1.4e-14, 5, 20, 20), (0, 5, 20, 20)),
        ((-0.5, -0.5, 20, 20), (0, 0, 19.5, 19.5)),
        ((180.3, 5, 20, 20), (180.3, 5, 19.7, 20)),
        ((5, 140.5, 20, 20), (5, 140.5, 20, 19.5)),
        ((0, 0, 200, 160), (0, 0, 200, 160)),
        ((-0.4, -0.4, 200.8, 160.8), (0, 0, 200, 160)),
    ],
)
def test_half_a_pixel_over_any_edge_is_cut_off(box: Any, cut: Any) -> None:
    assert checked_box(box, (200, 160), "bbox", "p.jpg") == pytest.approx(cut)


@pytest.mark.parametrize("box", [(-0.51, 5, 20, 20), (5, -0.51, 20, 20), (180.6, 5, 20, 20), (5, 140.6, 20, 20)])
def test_more_than_half_a_pixel_is_refused(box: Any) -> None:
    with pytest.raises(DataError, match="reaches outside"):
        checked_box(box, (200, 160), "bbox", "p.jpg")


@pytest.mark.parametrize("box", [(-0.4, 5, 0.3, 20), (200.1, 5, 0.2, 20)])
def test_nothing_left_inside_is_empty(box: Any) -> None:
    with pytest.raises(DataError, match="is empty"):
        checked_box(box, (200, 160), "bbox", "p.jpg")


def test_every_box_a_crowd_is_said_at_once(coco: Coco) -> None:
    def spoil(instances: dict[str, Any]) -> None:
        for thing in instances["annotations"]:
            thing["iscrowd"] = 1

    with pytest.raises(DataError, match=r"12 of 12 boxes are crowds \(iscrowd 1\), .* set iscrowd to 0 where a box"):
        opened(coco(spoil=spoil))


# Null, and JSON that Python reads


@pytest.mark.parametrize("nothing", [None, float("nan")])
@pytest.mark.parametrize(
    ("section", "field"),
    [
        ("categories", "supercategory"),
        ("annotations", "iscrowd"),
        ("annotations", "area"),
        ("images", "source"),
        ("images", "license"),
        ("images", "neg_category_ids"),
        ("licenses", "name"),
        ("licenses", "url"),
    ],
)
def test_null_is_as_good_as_missing(coco: Coco, section: str, field: str, nothing: float | None) -> None:
    def spoil(instances: dict[str, Any]) -> None:
        instances["licenses"] = [{"id": 1, "name": "CC0", "url": "example"}]
        instances["images"][0]["license"] = 1
        for entry in instances[section]:
            entry[field] = nothing

    source = opened(coco(spoil=spoil))
    picture = source.picture(0)
    assert source.size == 4 and len(picture.scene.objects) == 3 and picture.coverages == ()
    assert set(source.kinds.values()) == {""}


@pytest.mark.parametrize("value", [7, {"a": 1}, ["x"], ""])
@pytest.mark.parametrize("field", ["source", "license"])
def test_somebody_else_s_use_of_a_field_does_no_harm(coco: Coco, field: str, value: Any) -> None:
    assert opened(coco(spoil=lambda instances: instances["images"][0].update({field: value}))).size == 4


@pytest.mark.parametrize("number", [2**63 + 977, 2**100, 0x6F1E9A52C0DE4B7FB0AA5D6C7E8F9012, -5])
def test_ids_have_any_length(coco: Coco, number: int) -> None:
    def spoil(instances: dict[str, Any]) -> None:
        instances["images"][1]["id"] = number
        instances["categories"][3]["id"] = number
        for thing in instances["annotations"]:
            if thing["image_id"] == 1:
                thing["id"] += number
                thing["image_id"] = number
            if thing["category_id"] == 10:
                thing["category_id"] = number

    source = opened(coco(spoil=spoil))
    picture = source.picture(1)
    assert picture.scene.source_id == f"1-{number}"
    assert [thing.attributes["name"] for thing in picture.scene.objects] == ["dog 1", "ball 1", "kite 1"]


def test_long_ids_must_differ_too(coco: Coco) -> None:
    def spoil(instances: dict[str, Any]) -> None:
        for thing in instances["annotations"][:2]:
            thing["id"] = 2**100

    with pytest.raises(DataError, match=rf"annotations\[1\]\.id: {2**100} appears twice"):
        opened(coco(spoil=spoil))


def test_things_stand_in_the_order_of_their_ids_however_long(coco: Coco) -> None:
    def spoil(instances: dict[str, Any]) -> None:
        for thing, number in zip(instances["annotations"][:3], (10**30, 9, 10**20), strict=True):
            thing["id"] = 1000 + number

    things = opened(coco(spoil=spoil)).picture(0).scene.objects
    assert [thing.attributes["name"] for thing in things] == ["ball 0", "kite 0", "dog 0"]


def test_nan_where_nothing_is_needed_and_a_byte_order_mark_do_no_harm(coco: Coco) -> None:
    def spoil(instances: dict[str, Any]) -> None:
        for thing in instances["annotations"]:
            thing.update(area=float("nan"), score=float("-inf"), note='a "NaN", \\ and {Infinity')

    folder = coco(spoil=spoil)
    path = folder / "instances.json"
    path.write_text("\ufeff" + path.read_text(), encoding="utf-8")
    assert opened(folder).picture(0).scene.objects[0].box == Box(x=20, y=30, width=60, height=40)


def test_utf_16_is_named(coco: Coco) -> None:
    folder = coco()
    path = folder / "instances.json"
    path.write_text(path.read_text(), encoding="utf-16")
    with pytest.raises(DataError, match="it is in UTF-16; save it as UTF-8"):
        opened(folder)


# Headings


def heading(instances: dict[str, Any], name: str = "Household Objects", parent: str = "household-objects") -> None:
    for category in instances["categories"]:
        category["supercategory"] = parent
    instances["categories"].insert(0, {"id": 999, "name": name, "supercategory": "none"})


@pytest.mark.parametrize(
    ("name", "parent"), [("household-objects", "household-objects"), ("Household Objects", " household_objects")]
)
def test_a_heading_is_no_thing(coco: Coco, name: str, parent: str) -> None:
    source = opened(coco(spoil=lambda instances: heading(instances, name, parent)))
    assert name not in source.names and len(source.names) == 12
    # What all categories share tells none of them from another: there is something irrelevant in the picture.
    assert set(source.kinds.values()) == {""}
    assert not any("ousehold" in q.text for q in asked(source.picture(0), "existence", source.names))


def test_headings_of_headings_are_none_either(coco: Coco) -> None:
    def spoil(instances: dict[str, Any]) -> None:
        heading(instances)
        instances["categories"][0]["supercategory"] = "everything"
        instances["categories"].append({"id": 1000, "name": "everything"})

    assert len(opened(coco(spoil=spoil)).names) == 12


def test_a_heading_with_boxes_is_seen_wherever_one_of_its_kinds_is(coco: Coco) -> None:
    def spoil(instances: dict[str, Any]) -> None:
        names = {"dog": "animal", "ball": "toy", "kite": "toy"}
        for category in instances["categories"]:
            category["supercategory"] = names[category["name"].split()[0]]
        instances["categories"] += [{"id": 100, "name": "animal"}, {"id": 101, "name": "toy", "supercategory": "thing"}]
        instances["categories"] += [{"id": 102, "name": "thing"}, {"id": 103, "name": "unicorn"}]
        instances["annotations"] += [
            {"id": 100 + n, "image_id": 3, "category_id": 100 + n, "bbox": [5, 80, 10, 10]} for n in (0, 2, 3)
        ]
        instances["annotations"][-1].update(image_id=2)

    source = opened(coco(spoil=spoil))
    assert "animal" in source.names and "thing" in source.names and "toy" not in source.names
    picture = source.picture(0)
    assert {thing.attributes["name"] for thing in picture.doubtful} == {"animal", "thing"}
    absent = {q.query.target["name"] for q in asked(picture, "existence", source.names) if q.answer_text == "no"}
    assert "unicorn" in absent and not {"animal", "thing", "toy"} & absent
    # With a box of its own it is there; how many there are, nobody can say.
    third = source.picture(3)
    assert {q.query.target["name"] for q in asked(third, "count", source.names)} == {"dog 3", "ball 3", "kite 3"}
    assert any("animal" in q.text for q in asked(third, "existence", source.names))


def test_a_category_that_names_itself_is_a_thing(coco: Coco) -> None:
    """COCO's person is of the supercategory person."""

    def spoil(instances: dict[str, Any]) -> None:
        instances["categories"].append({"id": 100, "name": "person", "supercategory": "person"})

    source = opened(coco(spoil=spoil))
    assert "person" in source.names and source.kinds["person"] == "person"


def test_a_crowd_implies_what_its_members_imply(coco: Coco) -> None:
    folder = coco(spoil=lambda instances: instances["annotations"][0].update(iscrowd=1))
    picture = opened(folder, implies={"dog_0": ("wet_nose",)}).picture(0)
    assert {thing.attributes["name"] for thing in picture.doubtful} == {"dog 0", "wet nose"}


# Federated data sets


def federated(instances: dict[str, Any]) -> None:
    """Photograph 0: no kite of 1, all dogs but perhaps not all balls boxed, its kite said to be absent as well."""
    for image in instances["images"]:
        image.update(neg_category_ids=[], not_exhaustive_category_ids=[])
    instances["images"][0].update(neg_category_ids=[12, 2, 555], not_exhaustive_category_ids=[1])


def test_absence_is_asked_of_what_was_looked_for_and_numbers_of_what_is_all_boxed(coco: Coco) -> None:
    source = opened(coco(spoil=federated))
    picture = source.picture(0)
    existence = {(q.query.target["name"], q.answer_text) for q in asked(picture, "existence", source.names)}
    assert existence == {("dog 0", "yes"), ("ball 0", "yes"), ("kite 0", "yes"), ("kite 1", "no")}
    assert {q.query.target["name"] for q in asked(picture, "count", source.names)} == {"dog 0"}
    assert {q.query.target["name"] for q in asked(picture, "attribute", source.names)} <= {"dog 0"}
    assert asked(picture, "relation", source.names) == []


def test_nothing_is_pasted_that_may_show_what_is_asked_about(coco: Coco) -> None:
    """Nobody looked for the asked thing in the donor: its crop may show one."""
    source = opened(coco(spoil=federated))
    host = source.picture(0)
    question = next(q for q in asked(host, "existence", source.names) if q.answer_text == "no")
    donors = [cutout for index in (1, 2) for cutout in cutouts(source.picture(index))]
    fitting = [
        cutout.source_id
        for family in ("semantic", "irrelevant")
        for cutout in of_family(host, question, family, donors, source.kinds)
    ]
    # Photograph 1 has the one kite 1 that it shows boxed; of photograph 2 nobody knows.
    assert set(fitting) == {"1-1"}
    cutout = next(c for c in donors if c.source_id == "2-2")
    pasted = paste(host, cutout, Box(x=0, y=100, width=20, height=20))
    assert host.settled(question.query) == "no" and pasted.settled(question.query) is None
