"""A folder that `datasets` loads is a source as good as COCO's: same pictures, same policy for what is wrong."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import ClassLabel, Dataset, Features, Image, List, Value

from aot_core.contracts.prepare_data import CocoSettings, DatasetsSettings
from aot_core.worlds.images import DataError, RowError
from aot_core.worlds.photographs.coco import CocoSource
from aot_core.worlds.photographs.datasets import DatasetsSource

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
    with pytest.raises(DataError, match="does not say what its columns are"):
        (tmp_path / "empty" / "train.json").write_text('[{"image": "a.png"}]')
        DatasetsSource(tmp_path / "empty", SETTINGS, tmp_path / "other")
    with pytest.raises(DataError, match="Bad split: test"):
        DatasetsSource(folder, SETTINGS.model_copy(update={"split": "test"}), tmp_path / "other")
    assert not list((tmp_path / "other").iterdir()), "nothing half written is left"


def test_memory_does_not_grow_with_the_rows(coco: Callable[..., Path], tmp_path: Path) -> None:
    """What Arrow holds at a time is a row group, however many there are."""
    images = coco() / "images"
    group = {"bytes": (images / "0.png").read_bytes(), "path": None}
    features = Features(
        {
            "image": Image(),
            "objects": {"bbox": List(List(Value("float64"))), "category": List(Value("string"))},
        }
    )
    row = {"image": group, "objects": {"bbox": BOXES, "category": ["dog", "ball"]}}
    table = pa.Table.from_pylist([row] * 100, schema=features.arrow_schema)
    held = []
    for groups in (2, 40):
        folder = tmp_path / f"rows-{groups}"
        folder.mkdir()
        with pq.ParquetWriter(folder / "train.parquet", features.arrow_schema) as writer:
            for _ in range(groups):
                writer.write_table(table)
        code = (
            "import sys, pyarrow; from pathlib import Path; "
            "from aot_core.worlds.photographs.datasets import DatasetsSource; "
            "from aot_core.contracts.prepare_data import DatasetsSettings; "
            "DatasetsSource(Path(sys.argv[1]), DatasetsSettings(type='datasets'), Path(sys.argv[2])); "
            "print(pyarrow.default_memory_pool().max_memory())"
        )
        command = [sys.executable, "-c", code, str(folder), str(tmp_path / f"work-{groups}")]
        held.append(int(subprocess.check_output(command, text=True)))
    assert held[1] < 1.5 * held[0] and held[1] < 10 * table.nbytes


def write_rows(folder: Path, rows: dict[str, list[Any]], features: Features) -> None:
    """As someone else's Parquet: `to_parquet` would look up every path and put the file's bytes in its place."""
    folder.mkdir()
    pq.write_table(pa.Table.from_pydict(rows, schema=features.arrow_schema), folder / "train.parquet")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"image": None}, "missing"),
        ({"image": {"bytes": None, "path": "gone.png"}}, "missing"),
        ({"image": {"bytes": b"", "path": None}}, "unreadable"),
        ({"image": {"bytes": b"no image", "path": None}}, "unreadable"),
        ({"boxes": BOXES[:1]}, "bad_box"),
        ({"boxes": [BOXES[0], [float("nan"), 1.0, 2.0, 3.0]]}, "bad_box"),
        ({"boxes": [BOXES[0], [-5.0, 1.0, 2.0, 3.0]]}, "bad_box"),
        ({"boxes": [BOXES[0], [1.0, 2.0, 3.0]]}, "bad_box"),
        ({"names": ["dog", None]}, "unknown_category"),
        ({"names": ["dog", " . "]}, "unknown_category"),
    ],
)
def test_a_bad_row_is_left_out_with_its_reason(
    coco: Callable[..., Path], tmp_path: Path, changes: dict[str, Any], reason: str
) -> None:
    good = {"bytes": (coco() / "images/0.png").read_bytes(), "path": None}
    features = Features(
        {
            "image": Image(),
            "objects": {"bbox": List(List(Value("float64"))), "category": List(Value("string"))},
        }
    )
    objects = {"bbox": changes.get("boxes", BOXES), "category": changes.get("names", ["dog", "ball"])}
    rows = {
        "image": [good, changes.get("image", good)],
        "objects": [{"bbox": BOXES, "category": ["dog", "ball"]}, objects],
    }
    write_rows(tmp_path / "rows", rows, features)
    source = DatasetsSource(tmp_path / "rows", DatasetsSettings(type="datasets"), tmp_path / "work")
    assert [thing.attributes["name"] for thing in source.picture(0).scene.objects] == ["dog", "ball"]
    with pytest.raises(RowError, match=r"train\[1\]|gone\.png") as caught:
        source.picture(1)
    assert caught.value.reason == reason


@pytest.mark.parametrize("path", ["../secret.png", "/etc/passwd"])
def test_an_image_outside_the_folder_is_refused(tmp_path: Path, path: str) -> None:
    (tmp_path / "secret.png").write_bytes(b"")
    features = Features(
        {
            "image": Image(),
            "objects": {"bbox": List(List(Value("float64"))), "category": List(Value("string"))},
        }
    )
    rows = {
        "image": [{"bytes": None, "path": path}],
        "objects": [{"bbox": BOXES, "category": ["dog", "ball"]}],
    }
    write_rows(tmp_path / "rows", rows, features)
    with pytest.raises(DataError, match="does not lie inside"):
        DatasetsSource(tmp_path / "rows", DatasetsSettings(type="datasets"), tmp_path / "work").picture(0)
