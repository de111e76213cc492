"""Thirty-odd ways in which people's data is wrong, and what becomes of each.

"refused": a DataError, before anything is made, that names the field. "left out": the one photograph is not used, with
its reason, and counted. "read": as a person would see it. Never a crash, never a wrong truth.
"""

import json
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from aot_core.contracts.prepare_data import CocoSettings, PrepareDataConfig
from aot_core.contracts.scene import Sample
from aot_core.data.build import BuildSummary
from aot_core.engine.identity import pin_source
from aot_core.worlds.images import DataError, RowError
from aot_core.worlds.photographs.coco import CocoSource

Coco = Callable[..., Path]
TOLERANT = CocoSettings(type="coco", max_rejected=0.5)


def annotation(**fields: Any) -> Callable[[dict[str, Any]], None]:
    return lambda instances: instances["annotations"][4].update(fields)


def image(**fields: Any) -> Callable[[dict[str, Any]], None]:
    return lambda instances: instances["images"][1].update(fields)


def whole(value: Any) -> Callable[[dict[str, Any]], None]:
    """The file holds something else altogether."""

    def spoil(instances: dict[str, Any]) -> None:
        instances.clear()
        instances.update({"images": value, "annotations": value, "categories": value})

    return spoil


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (whole({"0": "a"}), "categories: a list with at least 1 item"),
        (whole(7), "categories: a list with at least 1 item"),
        (whole(["a", "b"]), r"categories\[0\]: Input should be a valid"),
        (lambda i: i.pop("annotations"), "annotations: a list with at least 1 item"),
        (lambda i: i.update(images=[]), "images: a list with at least 1 item"),
        (lambda i: i["images"][2].pop("file_name"), r"images\[2\]\.file_name: Field required"),
        (image(width=-200), r"images\[1\]\.width: .*greater than 0"),
        (image(id=0), r"images\[1\]\.id: 0 appears twice"),
        (annotation(id=0), r"annotations\[4\]\.id: 0 appears twice"),
        (lambda i: i["categories"][1].update(id=0), r"categories\[1\]\.id: 0 appears twice"),
        (lambda i: i["categories"][1].update(name=" .\n"), r"categories\[1\]\.name: .*has no letters or digits"),
        (lambda i: i["categories"][1].update(name="DOG 0"), r"categories: 'dog 0' and 'DOG 0' differ only in case"),
        (image(file_name="0.png"), r"images\[1\]\.file_name: '0\.png' appears twice"),
        (image(file_name=""), "does not lie inside"),
        (annotation(image_id=77), r"annotations\[4\]\.image_id: 77 is not an image"),
        (annotation(image_id="one"), r"annotations\[4\]\.image_id: .*valid integer"),
        (image(file_name="../../etc/passwd"), "does not lie inside"),
        (image(file_name="/etc/passwd"), "does not lie inside"),
        (image(file_name="link/0.png"), "does not lie inside"),
        (image(file_name="a\0b.png"), "does not lie inside"),
    ],
)
def test_refused(coco: Coco, tmp_path: Path, spoil: Callable[[dict[str, Any]], None], message: str) -> None:
    folder = coco(spoil=spoil)
    (folder / "images" / "link").symlink_to(tmp_path)
    with pytest.raises(DataError, match=message):
        CocoSource(folder, TOLERANT, tmp_path / "work")


def test_a_file_that_breaks_off_or_is_no_text_is_refused(coco: Coco, tmp_path: Path) -> None:
    path = coco() / "instances.json"
    text = path.read_bytes()
    for place, content in enumerate((text[: len(text) // 2], b"", b"\xff\xfe" + text, b"[1, 2", b"\x80" + text)):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"instances\.json"):
            CocoSource(path.parent, TOLERANT, tmp_path / str(place))


def test_a_link_out_of_the_folder_is_refused_before_anything_is_read(coco: Coco, tmp_path: Path) -> None:
    folder = coco()
    (tmp_path / "secret.png").write_bytes((folder / "images/0.png").read_bytes())
    (folder / "images/1.png").unlink()
    (folder / "images/1.png").symlink_to(tmp_path / "secret.png")
    with pytest.raises(ValueError, match="is a link out of"):
        pin_source(str(folder))
    with pytest.raises(DataError, match="does not lie inside"):
        CocoSource(folder, TOLERANT, tmp_path / "work")


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (annotation(bbox=[-1, 20, 36, 36]), "bad_box"),
        (annotation(bbox=[120, 20, -36, -36]), "bad_box"),
        (annotation(bbox=[120, 20, 0, 36]), "bad_box"),
        (annotation(bbox=[190, 20, 36, 36]), "bad_box"),
        (annotation(bbox=["NaN", 20, 36, 36]), "bad_box"),
        (annotation(bbox=[1, 2, 3]), "bad_box"),
        (annotation(bbox={"x": 1}), "bad_box"),
        (annotation(bbox=None), "bad_box"),
        (annotation(bbox=[10**18, 1, 1, 1]), "bad_box"),
        (annotation(bbox=[10**400, 1, 1, 1]), "bad_box"),
        (annotation(bbox=[float("nan"), 1, 2, 3]), "bad_box"),
        (annotation(bbox=[1, 1, float("inf"), 3]), "bad_box"),
        (annotation(bbox=[-0.6, 20, 36, 36]), "bad_box"),
        (annotation(category_id=77), "unknown_category"),
        (image(file_name="gone.png"), "missing"),
        (image(width=150, height=200), "wrong_size"),
    ],
)
def test_left_out_before_anything_is_made(
    coco: Coco, tmp_path: Path, spoil: Callable[[dict[str, Any]], None], reason: str
) -> None:
    folder = coco(spoil=spoil)
    source = CocoSource(folder, TOLERANT, tmp_path / "work")
    assert [one.reason for one in source.unusable] == [reason]
    assert source.size == 3
    names = [source.picture(index).scene.source_id for index in range(3)]
    assert names == ["0-0", "2-2", "3-3"], "the whole photograph is left out, not its one box"
    with pytest.raises(DataError, match=r"1 of 4 photographs cannot be used, more than source\.max_rejected = 0"):
        CocoSource(folder, CocoSettings(type="coco", max_rejected=0), tmp_path / "strict")


def bomb() -> bytes:
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda path: path.write_bytes(b""), "unreadable"),
        (lambda path: path.write_bytes(b"this is no image"), "unreadable"),
        (lambda path: path.write_bytes(path.read_bytes()[:2000]), "unreadable"),
        (lambda path: path.write_bytes(bomb()), "too_large"),
        (
            lambda path: Image.new("RGB", (200, 150)).save(
                path, "GIF", save_all=True, append_images=[Image.new("RGB", (200, 150), "red")]
            ),
            "animated",
        ),
        (
            lambda path: Image.new("RGB", (200, 150)).save(
                path, "PNG", save_all=True, append_images=[Image.new("RGB", (200, 150), "red")]
            ),
            "animated",
        ),
        (
            lambda path: Image.new("RGB", (200, 150)).save(
                path, "WEBP", save_all=True, append_images=[Image.new("RGB", (200, 150), "red")]
            ),
            "animated",
        ),
        (lambda path: Image.new("F", (200, 150)).save(path, "TIFF"), "depth"),
    ],
)
def test_images_that_cannot_be_used_are_left_out(
    coco: Coco, tmp_path: Path, make: Callable[[Path], object], reason: str
) -> None:
    folder = coco()
    make(folder / "images/1.png")
    source = CocoSource(folder, TOLERANT, tmp_path / "work")
    found = [one.reason for one in source.unusable]
    for index in range(source.size or 0):
        try:
            source.picture(index)
        except RowError as error:
            found.append(error.reason)
    assert found == [reason]


def saved(folder: Path, name: str, picture: Image.Image, **options: Any) -> np.ndarray:
    picture.save(folder / "images" / name, **options)
    source = CocoSource(folder, TOLERANT, folder / "work")
    return np.asarray(source.picture(1).image, dtype=np.int16)


@pytest.mark.parametrize("kind", ["cmyk", "grey16", "palette", "transparent", "grey", "turned"])
def test_images_are_read_as_a_person_sees_them(coco: Coco, kind: str) -> None:
    ramp = np.tile(np.linspace(0, 255, 200, dtype=np.uint8), (150, 1))
    grey = Image.fromarray(ramp)
    suffix = "jpg" if kind in ("cmyk", "turned") else "png"
    folder = coco(spoil=image(file_name=f"odd.{suffix}"))
    expected = np.repeat(ramp[:, :, None].astype(np.int16), 3, 2)
    if kind == "cmyk":
        found = saved(folder, "odd.jpg", grey.convert("RGB").convert("CMYK"), quality=100)
    elif kind == "grey16":
        found = saved(folder, "odd.png", Image.fromarray(ramp.astype(np.uint16) * 257))
    elif kind == "palette":
        found = saved(folder, "odd.png", grey.convert("P"))
    elif kind == "transparent":
        # What is hidden behind full transparency is not there: white paper is.
        hidden = Image.merge("RGBA", [grey, grey, grey, Image.new("L", grey.size, 0)])
        found, expected = saved(folder, "odd.png", hidden), np.full_like(expected, 255)
    elif kind == "grey":
        found = saved(folder, "odd.png", grey)
    else:
        lying = grey.convert("RGB").transpose(Image.Transpose.ROTATE_90)
        exif = lying.getexif()
        exif[0x0112] = 6
        found = saved(folder, "odd.jpg", lying, exif=exif, quality=100)
    assert found.shape == (150, 200, 3)
    assert np.abs(found - expected).max() <= 6


def config(**fields: Any) -> PrepareDataConfig:
    return PrepareDataConfig.model_validate(
        {
            "source": {"type": "coco", "max_rejected": 0.5},
            "splits": {"warm_start": 4, "train": 0, "evaluate": 2},
            "implantation": {"evaluated": ["semantic", "irrelevant"]},
            "effectiveness": {"enabled": False},
            "limits": {"max_attempts": 8},
            **fields,
        }
    )


Build = Callable[..., tuple[list[Sample], BuildSummary]]


def test_odd_names_are_names(coco: Coco, build: Build, tmp_path: Path) -> None:
    """A category called "A", Unicode, a full stop, a file name in Greek: questions stay right and readable."""
    names = iter(["A", "Katze\u0308", "St. Bernard", "  two\nlines ", "B", "犬", "yes", "left", "7", "no", "x/y", "C"])

    def spoil(instances: dict[str, Any]) -> None:
        for category in instances["categories"]:
            category["name"] = next(names)
        instances["images"][1]["file_name"] = "φωτογραφία 1.png"

    folder = coco(spoil=spoil)
    (folder / "images/1.png").rename(folder / "images/φωτογραφία 1.png")
    samples, _ = build(config(), tmp_path / "out", folder)
    from aot_core.data.guard import guard_dataset
    from aot_core.worlds.instructions import read_instruction

    assert all(read_instruction(sample.instruction) for sample in samples if sample.edits)
    guard_dataset(tmp_path / "out", 0.85, tmp_path / "guard")


def test_unusable_photographs_are_counted_and_told(coco: Coco, build: Build, tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    folder = coco(6, spoil=annotation(bbox=[-1, 20, 36, 36]))
    path = folder / "images/4.png"
    path.write_bytes(path.read_bytes()[:2000])
    _, summary = build(config(), tmp_path / "out", folder)
    told = pq.read_table(tmp_path / "out/rejections.parquet").to_pylist()
    assert {one.reason for one in summary.unusable} == {"bad_box", "unreadable"}
    assert summary.funnel["source/bad_box"] == summary.funnel["source/unreadable"] == 1
    assert {row["reason"] for row in told if row["step"] == "source"} == {"bad_box", "unreadable"}


def test_no_valid_question_at_all_is_said(coco: Coco, build: Build, tmp_path: Path) -> None:
    def spoil(instances: dict[str, Any]) -> None:
        # One thing in every photograph, and crowds of its kind: how many there are, nobody can say.
        for place, thing in enumerate(instances["annotations"]):
            thing.update(iscrowd=int(place % 3 > 0), category_id=10 * thing["image_id"])

    counts = {"existence": 0, "attribute": 0, "relation": 0, "count": 1}
    with pytest.raises(DataError, match=r"splits\.warm_start: only 0 of 4 .*question/no_count"):
        build(config(kinds=counts), tmp_path / "out", coco(spoil=spoil))
    assert not (tmp_path / "out/manifest.json").exists()


def test_an_empty_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"'instances\.json' is missing .*source\.annotations"):
        CocoSource(tmp_path, TOLERANT, tmp_path / "work")
    (tmp_path / "instances.json").write_text(json.dumps({"images": [], "annotations": [], "categories": []}))
    with pytest.raises(DataError, match="at least 1 item"):
        CocoSource(tmp_path, TOLERANT, tmp_path / "work")
