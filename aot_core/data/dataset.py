"""A data set on disk: samples in, samples out.

    manifest.json               written last: how many samples, and the sha256 of every table
    data/SPLIT/metadata.parquet a row a sample: flat columns to look at and to check, the sha256 of its images, and
                                `record`, the whole Sample as JSON
    data/SPLIT/00012/*.png      the images of one shard, clean and edited
    rejections.parquet          what was tried and not taken, and why

`datasets.load_dataset(folder)` reads it as it is: an image folder with metadata, whose card (README.md) names the
splits. A small data set that one process writes (`save_image`, `write_dataset`) has one table, beside `images/`.
Equal samples and images give equal bytes.
"""

import hashlib
import io
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from pydantic import ValidationError

from aot_core.contracts.base import canonical_json
from aot_core.contracts.prepare_data import ImageFormat
from aot_core.contracts.scene import Box, Sample, SceneObject, Split
from aot_core.data.splits import SPLITS
from aot_core.worlds.images import MAX_PIXELS, DataError, open_image, safe_path

TABLE = "metadata.parquet"
MANIFEST = "manifest.json"
REJECTIONS = "rejections.parquet"
IMAGES = "images"
DATA = "data"
_READ_WHOLE = 2**20
"""Files up to this size (bytes) are hashed in one piece, which halves the time for small images."""

_BOXES = pa.struct([("bbox", pa.list_(pa.list_(pa.float64()))), ("category", pa.list_(pa.string()))])
SCHEMA = pa.schema(
    [
        ("sample_id", pa.string()),
        ("split", pa.string()),
        ("source_id", pa.string()),
        ("source_hash", pa.string()),
        ("scene_id", pa.string()),
        ("licence", pa.string()),
        ("kind", pa.string()),
        ("question", pa.string()),
        ("options", pa.list_(pa.string())),
        ("answer", pa.string()),
        ("file_name", pa.string()),
        ("edited_file_name", pa.string()),
        ("image_sha256", pa.string()),
        ("edited_sha256", pa.string()),
        ("objects", _BOXES),
        ("edited_objects", _BOXES),
        ("protected", pa.list_(pa.list_(pa.float64()))),
        ("instruction", pa.string()),
        ("family", pa.string()),
        ("edit_kinds", pa.list_(pa.string())),
        ("ssim", pa.float64()),
        ("clean_correct", pa.float64()),
        ("edited_correct", pa.float64()),
        ("record", pa.string()),
    ]
)
"""File names are relative to the table's folder; `datasets` shows them as images, `image` and `edited`. Without edits
`edited_file_name`, `edited_sha256`, `family` and `instruction` are null and `edit_kinds` is empty. Boxes are x, y,
width, height in pixels."""

REJECTION_SCHEMA = pa.schema(
    [
        ("split", pa.string()),
        ("shard", pa.int64()),
        ("attempt", pa.int64()),
        ("source_id", pa.string()),
        ("step", pa.string()),
        ("reason", pa.string()),
        ("detail", pa.string()),
    ]
)


def encode_image(image: Image.Image, form: ImageFormat) -> bytes:
    """The image as a file of the format. Equal pixels give equal bytes."""
    buffer = io.BytesIO()
    if form.type == "png":
        # Level 1: PNG's slow levels save a tenth of the bytes and take most of a small stage's time.
        image.save(buffer, format="PNG", compress_level=1)
    elif form.type == "jpeg":
        image.save(buffer, format="JPEG", quality=form.quality, subsampling=0)
    else:
        image.save(buffer, format="WEBP", quality=form.quality, method=4)
    return buffer.getvalue()


def as_stored(image: Image.Image, form: ImageFormat) -> Image.Image:
    """What a reader of the stored image will see: the image itself where the format is exact."""
    if form.type == "png":
        return image
    with Image.open(io.BytesIO(encode_image(image, form))) as stored:
        return stored.convert("RGB")


def save_image(folder: Path, name: str, image: Image.Image) -> str:
    """Write `images/NAME.png` (lossless) into the data set and return that relative path."""
    relative = f"{IMAGES}/{name}.png"
    path = safe_path(folder, relative)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode_image(image, ImageFormat()))
    return relative


def write_dataset(folder: Path, samples: Sequence[Sample]) -> None:
    """Write the table and, last, the manifest. Every image must have been saved already.

    Raises DataError for a repeated sample_id and for a sample whose image is missing.
    """
    repeated = [name for name, count in Counter(sample.sample_id for sample in samples).items() if count > 1]
    if repeated:
        raise DataError(f"sample_id {repeated[0]!r} appears more than once; every sample needs an id of its own")
    hashes: dict[str, str] = {}
    for sample in samples:
        for relative in images_of(sample):
            if relative in hashes:
                continue
            path = safe_path(folder, relative)
            if not path.is_file():
                raise DataError(f"sample {sample.sample_id!r}: image {relative!r} is missing; save it first")
            hashes[relative] = file_sha256(path)
    folder.mkdir(parents=True, exist_ok=True)
    table = pa.Table.from_pylist([row_of(sample, hashes) for sample in samples], schema=SCHEMA)
    pq.write_table(table, folder / TABLE)
    write_manifest(folder)


def write_manifest(folder: Path) -> str:
    """Write `manifest.json` about the tables that stand in the folder, and return its sha256."""
    tables = tables_of(folder)
    splits: Counter[str] = Counter()
    for path in tables:
        splits.update(pq.read_table(path, columns=["split"])["split"].to_pylist())
    manifest = {
        "samples": splits.total(),
        "splits": dict(sorted(splits.items())),
        "tables": {path.relative_to(folder).as_posix(): file_sha256(path) for path in tables},
    }
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n")
    return file_sha256(folder / MANIFEST)


def tables_of(folder: Path) -> list[Path]:
    """The data set's tables, in the order of the splits. Raises DataError where there is none."""
    candidates = [folder / TABLE, *(folder / DATA / split / TABLE for split in SPLITS)]
    found = [path for path in candidates if path.is_file()]
    if not found:
        raise DataError(f"{folder} holds no {TABLE}; give the folder that prepare_data or curate wrote")
    return found


def read_samples(folder: Path, split: Split | None = None) -> list[Sample]:
    """The samples of a data set, in the order written, of one split if given.

    Raises DataError where the folder holds no data set or a row of it cannot be read.
    """
    return list(iter_samples(folder, split))


def iter_samples(folder: Path, split: Split | None = None) -> Iterator[Sample]:
    """`read_samples`, one at a time, so that memory does not grow with the data set."""
    for rows in iter_rows(folder, ["sample_id", "split", "record"]):
        for row in rows:
            if split is not None and row["split"] != split:
                continue
            try:
                yield Sample.model_validate_json(row["record"])
            except ValidationError as error:
                first = error.errors()[0]
                raise DataError(
                    f"{folder}: sample {row['sample_id']!r}: record.{'.'.join(map(str, first['loc']))}: "
                    f"{first['msg']}; make the data set again"
                ) from error


def iter_rows(folder: Path, columns: list[str] | None = None) -> Iterator[list[dict[str, Any]]]:
    """The flat rows, a few hundred at a time. Raises DataError as `read_samples`."""
    for path in tables_of(folder):
        try:
            with pq.ParquetFile(path) as file:
                for batch in file.iter_batches(batch_size=512, columns=columns):
                    yield batch.to_pylist()
        except (pa.ArrowInvalid, OSError) as error:
            raise DataError(f"{path} cannot be read ({error}); make the data set again") from error


def load_image(folder: Path, relative: str, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """An image of the data set, RGB. Raises DataError as `images.open_image`."""
    return open_image(folder, relative, max_pixels)


def load_images(folder: Path, relatives: Iterable[str]) -> list[Image.Image]:
    """Several images of the data set, in order."""
    return [load_image(folder, relative) for relative in relatives]


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest. Raises DataError where it is missing."""
    path = folder / MANIFEST
    if not path.is_file():
        raise DataError(f"{folder} holds no {MANIFEST}: the data set was not finished; make it again")
    return json.loads(path.read_text())


def wrong_hashes(folder: Path) -> list[str]:
    """The tables and images that are missing or differ from their sha256; empty for a sound data set."""
    wrong = [
        name
        for name, sha256 in read_manifest(folder)["tables"].items()
        if not (path := safe_path(folder, name)).is_file() or file_sha256(path) != sha256
    ]
    for relative, sha256 in iter_image_hashes(folder):
        image = safe_path(folder, relative)
        if not image.is_file() or file_sha256(image) != sha256:
            wrong.append(relative)
    return wrong


def iter_image_hashes(folder: Path, split: Split | None = None) -> Iterator[tuple[str, str]]:
    """Every image of a data set (of one split, if given) once: its path in the folder, and its sha256 as it was
    written. Read as a stream."""
    columns = ["split", "file_name", "image_sha256", "edited_file_name", "edited_sha256"]
    seen: set[str] = set()
    for path in tables_of(folder):
        base = path.parent.relative_to(folder)
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=512, columns=columns):
                for row in batch.to_pylist():
                    if split is not None and row["split"] != split:
                        continue
                    for name, sha256 in ((row[columns[1]], row[columns[2]]), (row[columns[3]], row[columns[4]])):
                        if name is not None and (relative := (base / name).as_posix()) not in seen:
                            seen.add(relative)
                            yield relative, sha256


def images_of(sample: Sample) -> list[str]:
    """The relative paths of the images that a sample names: the clean one and, in a pair, the edited one."""
    return [sample.image] if sample.edited_image is None else [sample.image, sample.edited_image]


def row_of(sample: Sample, hashes: Mapping[str, str], base: str = "") -> dict[str, Any]:
    """A sample as a row of `SCHEMA`.

    Args:
        hashes: image path, as the sample names it, to sha256.
        base: the folder of the table, relative to the data set's.
    """
    edited = sample.edited_image
    return {
        "sample_id": sample.sample_id,
        "split": sample.split,
        "source_id": sample.scene.source_id,
        "source_hash": sample.scene.source_hash,
        "scene_id": sample.scene.scene_id,
        "licence": sample.scene.licence,
        "kind": sample.question.query.kind,
        "question": sample.question.text,
        "options": list(sample.question.options),
        "answer": sample.question.answer,
        "file_name": _relative_to(sample.image, base),
        "edited_file_name": _relative_to(edited, base) if edited else None,
        "image_sha256": hashes[sample.image],
        "edited_sha256": hashes[edited] if edited else None,
        "objects": _boxes(sample.scene.objects),
        "edited_objects": _boxes(sample.edited_objects),
        "protected": [_four(box) for box in sample.question.protected],
        "instruction": sample.instruction or None,
        "family": sample.edits[0].family if sample.edits else None,
        "edit_kinds": [edit.kind for edit in sample.edits],
        "ssim": sample.ssim,
        "clean_correct": sample.clean_correct,
        "edited_correct": sample.edited_correct,
        "record": canonical_json(sample),
    }


def file_sha256(path: Path) -> str:
    """The sha256 of a file's bytes, as 64 hex digits."""
    with path.open("rb", buffering=0) as file:
        if os.fstat(file.fileno()).st_size <= _READ_WHOLE:
            return hashlib.sha256(file.read()).hexdigest()
        return hashlib.file_digest(file, "sha256").hexdigest()


def _relative_to(path: str, base: str) -> str:
    return PurePosixPath(path).relative_to(base).as_posix() if base else path


def _four(box: Box) -> list[float]:
    return [box.x, box.y, box.width, box.height]


def _boxes(things: Sequence[SceneObject]) -> dict[str, Any]:
    return {
        "bbox": [_four(thing.box) for thing in things],
        "category": [thing.attributes.get("name", thing.name) for thing in things],
    }
