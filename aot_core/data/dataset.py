"""A data set on disk: samples in, samples out.

    samples.parquet   a row a sample: flat columns to look at and to check, and `record`, the whole Sample as JSON
    images/*.png      clean and edited images; samples name them relative to the folder
    manifest.json     written last: counts, and the sha256 of samples.parquet and of every image

Images are saved one at a time (`save_image`) while a pipeline runs, the table and the manifest at its end
(`write_dataset`). Equal samples and images give equal bytes.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from aot_core.contracts.base import canonical_json
from aot_core.contracts.scene import Sample, Split
from aot_core.data.images import MAX_PIXELS, DataError, open_image, safe_path

SAMPLES = "samples.parquet"
MANIFEST = "manifest.json"
IMAGES = "images"

SCHEMA = pa.schema(
    [
        ("sample_id", pa.string()),
        ("split", pa.string()),
        ("source_id", pa.string()),
        ("scene_id", pa.string()),
        ("kind", pa.string()),
        ("question", pa.string()),
        ("options", pa.list_(pa.string())),
        ("answer", pa.string()),
        ("image", pa.string()),
        ("edited_image", pa.string()),
        ("instruction", pa.string()),
        ("family", pa.string()),
        ("edit_kinds", pa.list_(pa.string())),
        ("ssim", pa.float64()),
        ("clean_correct", pa.float64()),
        ("edited_correct", pa.float64()),
        ("record", pa.string()),
    ]
)
"""`family` and `instruction` are null and `edit_kinds` empty in a sample without edits."""


def save_image(folder: Path, name: str, image: Image.Image) -> str:
    """Write `images/NAME.png` (lossless) into the data set and return that relative path."""
    relative = f"{IMAGES}/{name}.png"
    path = safe_path(folder, relative)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Level 1: PNG's slow levels save a tenth of the bytes and take most of a small stage's time.
    image.save(path, format="PNG", compress_level=1)
    return relative


def write_dataset(folder: Path, samples: Sequence[Sample]) -> None:
    """Write the table and, last, the manifest. Every image must have been saved already.

    Raises DataError for a repeated sample_id and for a sample whose image is missing.
    """
    repeated = [name for name, count in Counter(sample.sample_id for sample in samples).items() if count > 1]
    if repeated:
        raise DataError(f"sample_id {repeated[0]!r} stands more than once; every sample needs an id of its own")
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
    table = pa.Table.from_pylist([row_of(sample) for sample in samples], schema=SCHEMA)
    pq.write_table(table, folder / SAMPLES)
    manifest = {
        "samples": len(samples),
        "splits": dict(sorted(Counter(sample.split for sample in samples).items())),
        "table_sha256": file_sha256(folder / SAMPLES),
        "images": dict(sorted(hashes.items())),
    }
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n")


def read_samples(folder: Path, split: Split | None = None) -> list[Sample]:
    """The samples of a data set, in the order written, of one split if given.

    Raises DataError where the folder holds no data set or its table cannot be read.
    """
    rows = read_table(folder, columns=["split", "record"]).to_pylist()
    return [Sample.model_validate_json(row["record"]) for row in rows if split is None or row["split"] == split]


def read_table(folder: Path, columns: list[str] | None = None) -> pa.Table:
    """The data set's flat table. Raises DataError as `read_samples`."""
    path = folder / SAMPLES
    if not path.is_file():
        raise DataError(f"{folder} holds no {SAMPLES}; give the folder that prepare_data or curate wrote")
    try:
        return pq.read_table(path, columns=columns)
    except pa.ArrowInvalid as error:
        raise DataError(f"{path} cannot be read ({error}); make the data set again") from error


def load_image(folder: Path, relative: str, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """An image of the data set, RGB. Raises DataError as `images.open_image`."""
    return open_image(folder, relative, max_pixels)


def load_images(folder: Path, relatives: Iterable[str]) -> list[Image.Image]:
    """Several images of the data set, in order."""
    return [load_image(folder, relative) for relative in relatives]


def manifest_hashes(folder: Path) -> dict[str, str]:
    """The sha256 of the table and of every image, by relative path, as they were written.

    Raises DataError where the manifest is missing.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise DataError(f"{folder} holds no {MANIFEST}: the data set was not finished; make it again")
    manifest = json.loads(path.read_text())
    return {SAMPLES: manifest["table_sha256"], **manifest["images"]}


def wrong_hashes(folder: Path) -> list[str]:
    """The files of the manifest that are missing or differ from their sha256; empty for a sound data set."""
    return [
        relative
        for relative, sha256 in manifest_hashes(folder).items()
        if not (file := safe_path(folder, relative)).is_file() or file_sha256(file) != sha256
    ]


def images_of(sample: Sample) -> list[str]:
    """The relative paths of the images that a sample names: the clean one and, in a pair, the edited one."""
    return [sample.image] if sample.edited_image is None else [sample.image, sample.edited_image]


def row_of(sample: Sample) -> dict[str, Any]:
    """A sample as a row of `SCHEMA`."""
    return {
        "sample_id": sample.sample_id,
        "split": sample.split,
        "source_id": sample.scene.source_id,
        "scene_id": sample.scene.scene_id,
        "kind": sample.question.query.kind,
        "question": sample.question.text,
        "options": list(sample.question.options),
        "answer": sample.question.answer,
        "image": sample.image,
        "edited_image": sample.edited_image,
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
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
