"""What somebody brings along: read, or refused with the field's name and the fix."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from aot_core.contracts.scene import Box
from aot_core.worlds.images import DataError
from aot_core.worlds.opening import world_of
from aot_core.worlds.probe import sample_of
from aot_core.worlds.protocol import ProbeError
from aot_core.worlds.shapes import world

YES_NO = ["yes", "no"]


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    """A red ring in row 2, column 2, a blue square in row 4, column 1."""
    rng = np.random.default_rng(0)
    objects = [
        world.place(rng, {"colour": colour, "shape": shape}, cell)
        for colour, shape, cell in (("red", "ring", (1, 1)), ("blue", "square", (3, 0)))
    ]
    world.render(objects, world.Backdrop()).save(tmp_path / "scene.png")
    return tmp_path / "scene.png"


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    noise = np.random.default_rng(0).integers(0, 255, (48, 80, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def test_a_scene_of_the_world_is_read_by_the_parser(scene: Path) -> None:
    sample, picture = sample_of(scene, "Is there a red ring?", YES_NO, "yes", [])
    assert picture.size == (64, 64)
    assert not world_of(sample).photographs
    assert sorted(thing.name for thing in sample.scene.objects) == ["blue square", "red ring"]
    assert (sample.question.answer, len(sample.question.protected)) == ("A", 1)
    assert sample.question.protected[0].overlap(world.cell_box((1, 1))) > 50


def test_a_photograph_is_known_by_its_boxes(photo: Path) -> None:
    sample, _ = sample_of(photo, "What is on the table?", ["a cup", "a dog"], "B", ["2,3,20,30", "60,0,20,48"])
    assert world_of(sample).photographs
    assert sample.question.answer_text == "a dog"
    assert sample.question.protected == (Box(x=2, y=3, width=20, height=30), Box(x=60, y=0, width=20, height=48))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"path": Path("nowhere.png")}, r"image 'nowhere.png' does not exist"),
        ({"answer": "maybe"}, r"answer: 'maybe' is not among the options yes, no"),
        ({"options": ["yes"]}, r"option: 1 given; give --option two to 8 times"),
        ({"options": ["yes", "yes"]}, r"option: yes, yes repeat"),
        ({"boxes": []}, r"boxes: none given; give --boxes X,Y,WIDTH,HEIGHT"),
        ({"boxes": ["1,2,3"]}, r"boxes: '1,2,3' is not a box"),
        ({"boxes": ["70,0,20,10"]}, r"boxes: 70,0,20,10 does not lie inside the picture of 80x48"),
        ({"boxes": ["nan,0,20,10"]}, r"does not lie inside"),
        ({"boxes": ["0,0,0,10"]}, r"does not lie inside"),
    ],
)
def test_bad_input_is_refused_by_name(photo: Path, changed: dict, message: str) -> None:
    given = {"path": photo, "question": "Is it?", "options": YES_NO, "answer": "yes", "boxes": ["1,1,9,9"], **changed}
    with pytest.raises(ProbeError, match=message):
        sample_of(**given)


def test_what_is_no_picture_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.png").write_text("no picture")
    with pytest.raises(DataError, match=r"notes\.png.*cannot be read"):
        sample_of(tmp_path / "notes.png", "Is it?", YES_NO, "yes", ["1,1,9,9"])


def test_an_answer_that_the_scene_contradicts_is_refused(scene: Path) -> None:
    with pytest.raises(ProbeError, match=r"answer: 'no' is not what the picture shows \(.*red ring.*\): .*'yes'"):
        sample_of(scene, "Is there a red ring?", YES_NO, "no", [])
    with pytest.raises(ProbeError, match="question: the picture does not decide it"):
        sample_of(scene, "What colour is the star?", ["red", "blue"], "red", [])
