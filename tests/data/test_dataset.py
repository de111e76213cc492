"""Samples survive the disk, and whatever is wrong with a folder is said with the file and the fix."""

import struct
import zlib
from pathlib import Path

import pytest
from PIL import Image

from aot_core.contracts.scene import Box, Query, Question, Sample, Scene, SceneObject
from aot_core.data import dataset
from aot_core.worlds.images import DataError, image_size, open_image, safe_path


def sample(name: str, split: str = "train") -> Sample:
    ring = SceneObject(box=Box(x=2, y=3, width=10, height=10), attributes={"colour": "red", "shape": "ring"})
    query = Query(kind="attribute", target={"shape": "ring"}, asked="colour")
    return Sample.model_validate(
        {
            "sample_id": name,
            "split": split,
            "scene": Scene(scene_id=name, source_id=name, width=64, height=64, objects=(ring,)),
            "question": Question(
                query=query, text="What colour is the ring?", options=("blue", "red"), answer="B", protected=(ring.box,)
            ),
            "image": f"images/{name}.png",
        }
    )


def write(folder: Path, *samples: Sample) -> None:
    for one in samples:
        dataset.save_image(folder, one.sample_id, Image.new("RGB", (64, 64), (200, 10, 10)))
    dataset.write_dataset(folder, samples)


def test_samples_come_back_as_they_were_written(tmp_path: Path) -> None:
    samples = [sample("a"), sample("b", "evaluate")]
    write(tmp_path, *samples)
    assert dataset.read_samples(tmp_path) == samples
    assert dataset.read_samples(tmp_path, "evaluate") == samples[1:]
    assert dataset.load_image(tmp_path, samples[0].image).getpixel((5, 5)) == (200, 10, 10)
    assert dataset.wrong_hashes(tmp_path) == []


def test_equal_samples_give_equal_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write(tmp_path / name, sample("a"), sample("b"))
    one, two = (sorted(p for p in (tmp_path / n).rglob("*") if p.is_file()) for n in ("one", "two"))
    assert [p.read_bytes() for p in one] == [p.read_bytes() for p in two]
    assert len(one) == 4


def test_a_changed_image_and_a_missing_one_are_found_by_their_hash(tmp_path: Path) -> None:
    write(tmp_path, sample("a"), sample("b"), sample("c"))
    Image.new("RGB", (64, 64), (0, 0, 0)).save(tmp_path / "images/a.png")
    (tmp_path / "images/b.png").unlink()
    assert dataset.wrong_hashes(tmp_path) == ["images/a.png", "images/b.png"]


def test_nothing_is_written_for_a_sample_without_its_image(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"sample 'a': image 'images/a.png' is missing"):
        dataset.write_dataset(tmp_path, [sample("a")])
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(DataError, match="'a' appears more than once"):
        dataset.write_dataset(tmp_path, [sample("a"), sample("a")])


def test_a_folder_without_a_data_set_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds no metadata\.parquet"):
        dataset.read_samples(tmp_path)
    (tmp_path / "metadata.parquet").write_bytes(b"no parquet")
    with pytest.raises(DataError, match="cannot be read"):
        dataset.read_samples(tmp_path)


@pytest.mark.parametrize("relative", ["../secret.png", "/etc/passwd", "images/../../secret.png", "", ".", "link/a.png"])
def test_paths_never_leave_their_folder(tmp_path: Path, relative: str) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "secret.png")
    (inside / "link").symlink_to(tmp_path)
    with pytest.raises(DataError, match="does not lie inside"):
        safe_path(inside, relative)
    with pytest.raises(DataError, match=r"without '\.\.'"):
        dataset.load_image(inside, relative)


def test_a_truncated_image_is_named(tmp_path: Path) -> None:
    for name, options in (("a.png", {}), ("b.jpg", {"quality": 90})):
        noise = Image.effect_noise((200, 200), 80).convert("RGB")
        noise.save(tmp_path / name, **options)
        whole = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(whole[: len(whole) // 2])
        with pytest.raises(DataError, match=rf"image '{name}' .*truncated or not an image"):
            open_image(tmp_path, name)


def test_what_is_no_image_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"GIF is what I am not")
    with pytest.raises(DataError, match=r"'a\.png' .*not an image"):
        open_image(tmp_path, "a.png")
    with pytest.raises(DataError, match=r"'b\.png' is missing"):
        open_image(tmp_path, "b.png")


@pytest.mark.parametrize("side", [9_000, 60_000])
def test_a_decompression_bomb_is_refused_by_its_header(tmp_path: Path, side: int) -> None:
    # A few hundred bytes that would become a quarter of a gigabyte, and ten: nothing of it is decoded.
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    data = chunk(b"IDAT", zlib.compress(b"\0" * 100_000)) + chunk(b"IEND", b"")
    (tmp_path / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + header + data)
    for read in (open_image, image_size):
        with pytest.raises(DataError, match=r"'bomb.png'.*more than the limit of 40000000 pixels"):
            read(tmp_path, "bomb.png")


def test_images_are_turned_upright(tmp_path: Path) -> None:
    image = Image.new("RGB", (40, 20), (255, 0, 0))
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(tmp_path / "turned.jpg", exif=exif)
    assert open_image(tmp_path, "turned.jpg").size == image_size(tmp_path, "turned.jpg") == (20, 40)
