"""A COCO folder is read strictly: whatever is wrong is said with its field and the fix, before anything is made."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from aot_core.contracts.prepare_data import CocoSettings
from aot_core.contracts.scene import Box
from aot_core.worlds.images import DataError
from aot_core.worlds.photographs.coco import CocoSource

SETTINGS = CocoSettings(type="coco")
Coco = Callable[..., Path]


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """Where the index is written."""
    return tmp_path / "work"


def test_a_good_folder_is_read(work: Path, coco: Coco) -> None:
    source = CocoSource(coco(), SETTINGS, work)
    picture = source.picture(1)
    assert source.size == 4
    assert picture.image.size == (200, 150)
    assert [thing.attributes for thing in picture.scene.objects] == [
        {"name": "dog 1"},
        {"name": "ball 1"},
        {"name": "kite 1", "place": "lower right"},
    ]
    # Two of them stand too near a boundary between thirds to be at one place.
    assert picture.scene.objects[1].box == Box(x=120, y=20, width=36, height=36)


def test_the_index_may_lie_in_a_folder_of_any_name(tmp_path: Path, coco: Coco) -> None:
    """SQLite opens it by an address, in which "#", "?" and "%" have a meaning."""
    folder = coco()
    for name in ("scans #2", "100%41", "what?"):
        assert CocoSource(folder, SETTINGS, tmp_path / name).size == 4


def test_pictures_can_be_scaled_down_with_their_boxes(work: Path, coco: Coco) -> None:
    picture = CocoSource(coco(), CocoSettings(type="coco", max_side=100), work).picture(0)
    assert picture.image.size == (100, 75)
    assert picture.scene.objects[1].box == Box(x=60, y=10, width=18, height=18)


def test_crowds_and_implied_things_are_doubtful(work: Path, coco: Coco) -> None:
    def spoil(instances: dict[str, Any]) -> None:
        instances["annotations"][1]["iscrowd"] = 1

    settings = CocoSettings(type="coco", implies={"dog 0": ("tail",)})
    picture = CocoSource(coco(spoil=spoil), settings, work).picture(0)
    assert [thing.attributes["name"] for thing in picture.scene.objects] == ["dog 0", "kite 0"]
    assert [thing.attributes["name"] for thing in picture.doubtful] == ["ball 0", "tail"]


def annotation(**fields: Any) -> Callable[[dict[str, Any]], None]:
    return lambda instances: instances["annotations"][2].update(fields)


def image(**fields: Any) -> Callable[[dict[str, Any]], None]:
    return lambda instances: instances["images"][1].update(fields)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (annotation(bbox=[190, 20, 36, 36]), r"annotations\[2\]\.bbox: .*outside the 200x150 image '0.png'"),
        (annotation(bbox=[-1, 20, 36, 36]), r"annotations\[2\]\.bbox: .*correct the box"),
        (annotation(bbox=[1, 20, 0, 36]), r"annotations\[2\]\.bbox: .*empty"),
        (annotation(bbox=[1, 20, float("nan"), 36]), r"annotations\[2\]\.bbox: .*not a finite number"),
        (annotation(bbox=[1, 20, 36]), r"annotations\[2\]\.bbox"),
        (annotation(id=0), r"annotations\[2\]\.id: 0 appears twice"),
        (annotation(category_id=77), r"annotations\[2\]\.category_id: 77 is not a category; add it"),
        (annotation(image_id=77), r"annotations\[2\]\.image_id: 77 is not an image"),
        (image(id=0), r"images\[1\]\.id: 0 appears twice"),
        (image(file_name="gone.png"), r"image 'gone.png' is missing .*add the file or drop its entry"),
        (image(file_name="../instances.json"), r"'../instances.json' does not lie inside .*without '\.\.'"),
        (image(file_name="/etc/passwd"), "does not lie inside"),
        (image(width=150, height=200), r"images\[1\]\.width, \.height: 150x200, but '1.png'.* is 200x150"),
        (lambda instances: instances.pop("categories"), r"instances.json: categories: .*at least 1 item"),
        (lambda instances: instances.update(images=[]), r"instances.json: images: .*at least 1 item"),
    ],
)
def test_bad_annotations(work: Path, coco: Coco, spoil: Callable[[dict[str, Any]], None], message: str) -> None:
    with pytest.raises(DataError, match=message):
        CocoSource(coco(spoil=spoil), SETTINGS, work)


def test_bad_folders(work: Path, coco: Coco, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"source folder .* does not exist"):
        CocoSource(tmp_path / "nowhere", SETTINGS, work)
    folder = coco()
    with pytest.raises(DataError, match=r"'other.json' is missing .*source\.annotations"):
        CocoSource(folder, CocoSettings(type="coco", annotations="other.json"), work)
    for climbing in (CocoSettings(type="coco", annotations="../x.json"), CocoSettings(type="coco", images="..")):
        with pytest.raises(DataError, match="does not lie inside"):
            CocoSource(folder, climbing, work)
    (folder / "instances.json").write_text("{")
    with pytest.raises(DataError, match="is not JSON"):
        CocoSource(folder, SETTINGS, work)


def test_an_image_above_the_limit_is_refused_before_anything_is_made(work: Path, coco: Coco) -> None:
    with pytest.raises(DataError, match=r"'0.png': 200x150 pixels are more than the limit of 1000 .*max_image_pixels"):
        CocoSource(coco(), SETTINGS, work, max_pixels=1000)


def test_a_truncated_image_is_named_when_it_is_opened(work: Path, coco: Coco) -> None:
    folder = coco()
    path = folder / "images/2.png"
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(DataError, match=r"'2.png' .*truncated .*copy it again or drop its entry"):
        CocoSource(folder, SETTINGS, work).picture(2)


def test_boxes_refer_to_the_upright_image(work: Path, coco: Coco) -> None:
    folder = coco(spoil=image(file_name="turned.jpg"))
    lying = Image.open(folder / "images/1.png").rotate(90, expand=True)
    exif = lying.getexif()
    exif[0x0112] = 6
    lying.save(folder / "images/turned.jpg", exif=exif)
    assert CocoSource(folder, SETTINGS, work).picture(1).image.size == (200, 150)
