"""A folder that `datasets` loads is a source as good as COCO's: same pictures, same policy for what is wrong."""

from collections.abc import Callable
from pathlib import Path

import pytest
from datasets import ClassLabel, Dataset, Features, Image, List, Value

from aot_core.contracts.prepare_data import CocoSettings, DatasetsSettings
from aot_core.data.coco import CocoSource
from aot_core.data.datasets_source import DatasetsSource
from aot_core.data.images import DataError, RowError

SETTINGS = DatasetsSettings(type="datasets", licence="licence")
BOXES = [[20.0, 30.0, 60.0, 40.0], [120.0, 20.0, 36.0, 36.0]]


def write(folder: Path, images: Path, *, numbers: bool) -> Path:
    """Two rows as Parquet with the images inside; the second row's box reaches outside."""
    names = ClassLabel(names=["dog 0", "ball 0"]) if numbers else Value("string")
    said = [0, 1] if numbers else ["dog 0", "ball 0"]
    features = Features(
        {
            "image": Image(),
            "objects": {"bbox": List(List(Value("float64"))), "category": List(names)},
            "licence": Value("string"),
        }
    )
    rows = {
        "image": [{"bytes": (images / name).read_bytes(), "path": None} for name in ("0.png", "1.png")],
        "objects": [{"bbox": BOXES, "category": said}, {"bbox": [[190.0, 20.0, 36.0, 36.0]], "category": said[:1]}],
        "licence": ["CC0", None],
    }
    folder.mkdir()
    Dataset.from_dict(rows, features=features).to_parquet(folder / "train.parquet")
    return folder


@pytest.mark.parametrize("numbers", [True, False])
def test_it_gives_the_pictures_that_coco_gives(coco: Callable[..., Path], tmp_path: Path, numbers: bool) -> None:
    folder = coco()
    other = CocoSource(folder, CocoSettings(type="coco"), tmp_path / "coco").picture(0)
    source = DatasetsSource(write(tmp_path / "rows", folder / "images", numbers=numbers), SETTINGS, tmp_path / "work")
    picture = source.picture(0)
    assert source.size == 2 and set(source.names) == {"dog 0", "ball 0"}
    assert picture.image.tobytes() == other.image.tobytes()
    assert picture.scene.objects == other.scene.objects[:2]
    assert picture.scene.licence == "CC0" and picture.scene.source_hash == other.scene.source_hash
    with pytest.raises(RowError, match=r"train\[1\]\.objects\.bbox\[0\]: .*outside the 200x150 image") as caught:
        source.picture(1)
    assert caught.value.reason == "bad_box"


def test_corners_and_columns(coco: Callable[..., Path], tmp_path: Path) -> None:
    folder = write(tmp_path / "rows", coco() / "images", numbers=False)
    corners = SETTINGS.model_copy(update={"box_format": "xyxy"})
    # The first box is one either way, the second has its corners the wrong way round.
    with pytest.raises(RowError, match=r"bbox\[1\]: .*is empty"):
        DatasetsSource(folder, corners, tmp_path / "work").picture(0)
    with pytest.raises(DataError, match="there is no column 'pixels'; the folder has image, objects, licence"):
        DatasetsSource(folder, DatasetsSettings(type="datasets", image="pixels"), tmp_path / "work")
    with pytest.raises(DataError, match="holds no Parquet and no images"):
        (tmp_path / "empty").mkdir()
        DatasetsSource(tmp_path / "empty", SETTINGS, tmp_path / "work")
