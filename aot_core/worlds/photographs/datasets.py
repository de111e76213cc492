"""Images with boxes in a folder that Hugging Face `datasets` loads: Parquet with images in it, or files with metadata.

    folder --load_dataset, as a stream--> an Arrow file (in the work folder, mapped into memory) --by number--> Picture

So memory does not grow with the folder; what is mapped counts as a process's only until it is wanted elsewhere, and
workers share it. Images are decoded by `aot_core.worlds.images`, under its limits, and an image
that is told by a path must lie inside the folder. What is wrong with one row leaves that row out, with its reason.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from aot_core.contracts.prepare_data import DatasetsSettings
from aot_core.worlds.images import MAX_PIXELS, DataError, RowError, decode_image, open_image, safe_path
from aot_core.worlds.photographs.annotated import (
    Annotated,
    checked_box,
    content_of,
    photograph,
    plain_name,
    refuse_lookalikes,
)
from aot_core.worlds.sources import Picture, Unusable

ROWS = "rows.arrow"
_ROWS_AT_A_TIME = 100
_FILES = {".parquet", ".arrow", ".jsonl", ".json", ".csv", ".png", ".jpg", ".jpeg", ".webp"}


class DatasetsSource:
    """The rows of one split, in the folder's order. Raises DataError where a column is not as the settings say."""

    def __init__(self, folder: Path, settings: DatasetsSettings, work: Path, max_pixels: int = MAX_PIXELS) -> None:
        if not folder.is_dir():
            raise DataError(f"source folder {folder} does not exist; give a folder that `datasets` loads")
        if not any(path.suffix.lower() in _FILES for path in folder.rglob("*")):
            raise DataError(f"source folder {folder} holds no Parquet and no images; give one that `datasets` loads")
        from datasets import Dataset

        self._folder, self._settings, self._max_pixels = folder.resolve(), settings, max_pixels
        file = work / ROWS
        if not file.is_file():
            work.mkdir(parents=True, exist_ok=True)
            partial = file.with_name(f"{ROWS}.{os.getpid()}")
            try:
                _write_rows(partial, self._folder, settings)
                partial.replace(file)
            finally:
                partial.unlink(missing_ok=True)
        self._rows = rows = Dataset.from_file(str(file))
        self._names = _class_names(rows.features, settings)
        self._seen: dict[str, None] = {}
        if not self._names:
            # Names told in words: gone over once, column alone, a batch at a time.
            for batch in rows.select_columns([settings.objects]).with_format(None).iter(batch_size=1000):
                assert isinstance(batch, dict)
                for struct in batch[settings.objects]:
                    self._seen.update(dict.fromkeys(_plain_or_none(n) for n in _lists(struct, settings)[1]))
            self._seen.pop("", None)
        refuse_lookalikes(self.names, f"source.{settings.names}")

    @property
    def size(self) -> int | None:
        return len(self._rows)

    @property
    def names(self) -> tuple[str, ...]:
        """Every name that an object has."""
        return tuple(map(plain_name, self._names)) if self._names else tuple(sorted(self._seen))

    @property
    def kinds(self) -> Mapping[str, str]:
        return {}

    @property
    def unusable(self) -> list[Unusable]:
        """Empty: what cannot be used is found when its turn comes."""
        return []

    @property
    def max_rejected(self) -> float:
        return self._settings.max_rejected

    def picture(self, index: int) -> Picture:
        settings = self._settings
        row: dict[str, Any] = self._rows[index]
        field = f"{settings.split}[{index}]"
        image = self._image(row[settings.image], field)
        boxes, names = _lists(row[settings.objects], settings)
        if len(boxes) != len(names):
            raise RowError("bad_box", f"{field}: {len(boxes)} boxes and {len(names)} names; give as many of each")
        things = []
        for place, (box, name) in enumerate(zip(boxes, names, strict=True)):
            where = f"{field}.{settings.objects}.{settings.boxes}[{place}]"
            checked = checked_box(self._xywh(box, where), image.size, where, field)
            things.append(Annotated(checked, self._name(name, where)))
        licence = str(row[settings.licence] or "") if settings.licence else ""
        return photograph(image, f"{settings.split}-{index}", things, licence, settings)

    def content(self, index: int) -> tuple[str, str]:
        """See `Photographs.content`."""
        settings, row = self._settings, self._rows[index]
        assert isinstance(row, dict)
        value: dict[str, Any] = row[settings.image] or {"bytes": None, "path": None}
        path, image = Path(value["path"] or ""), value["bytes"]
        if image is None:
            image = safe_path(self._folder, self._relative(path))
        boxes, names = _lists(row[settings.objects], settings)
        licence = row[settings.licence] if settings.licence else ""
        # A class is its name: a grown folder may number classes anew.
        words = [dict(enumerate(self._names)).get(name, name) for name in names]
        return content_of(path.stem or settings.split, image, [boxes, words, licence])

    def _image(self, value: Any, field: str) -> Image.Image:
        if value is None or (value["bytes"] is None and not value["path"]):
            raise RowError("missing", f"{field}: the image is missing; drop the row or give it one")
        if value["bytes"] is not None:
            return decode_image(value["bytes"], field, self._max_pixels)
        return open_image(self._folder, self._relative(Path(value["path"])), self._max_pixels)

    def _relative(self, path: Path) -> str:
        return str(path.relative_to(self._folder) if path.is_relative_to(self._folder) else path)

    def _xywh(self, box: Any, field: str) -> Any:
        if self._settings.box_format == "xywh":
            return box
        try:
            x, y, right, bottom = box
            return x, y, right - x, bottom - y
        except (TypeError, ValueError) as error:
            raise RowError("bad_box", f"{field}: {box!r} is not a pair of corners; correct the box") from error

    def _name(self, name: Any, field: str) -> str:
        if not self._names:
            plain = _plain_or_none(name)
        else:
            known = isinstance(name, int) and 0 <= name < len(self._names)
            plain = plain_name(self._names[name]) if known else ""
        if not plain:
            raise RowError("unknown_category", f"{field}: {name!r} is not a category; correct it")
        return plain


def _write_rows(file: Path, folder: Path, settings: DatasetsSettings) -> None:
    """Write the wanted columns of a split, images undecoded, as one Arrow file that can be read by number."""
    import datasets
    import pyarrow as pa
    from datasets.arrow_writer import ArrowWriter

    try:
        stream = datasets.load_dataset(str(folder), split=settings.split, streaming=True)
        # A row group at a time. In one piece, as `load_dataset` itself does it, Arrow's scanner reads ahead of what is
        # written, up to a gigabyte.
        stream = stream.reshard()
        if stream.features is None:
            raise DataError(
                f"source folder {folder} does not say what its columns are; give Parquet, or image files with metadata"
            )
        _class_names(stream.features, settings)
        wanted = [settings.image, settings.objects, *([settings.licence] if settings.licence else [])]
        stream = stream.select_columns(wanted).cast_column(settings.image, datasets.Image(decode=False))
        with ArrowWriter(features=stream.features, path=str(file)) as writer:
            for table in stream.with_format("arrow").iter(batch_size=_ROWS_AT_A_TIME):
                writer.write_table(table)
            writer.finalize()
    except DataError:
        raise
    except (ValueError, TypeError, OSError, pa.ArrowException) as error:
        raise DataError(f"source folder {folder}, split {settings.split!r}: {error}") from error


def _class_names(features: Mapping[str, Any], settings: DatasetsSettings) -> tuple[str, ...]:
    """The names of a ClassLabel; empty where names are told in words. Raises DataError for columns that do not fit."""
    import datasets

    for column in (settings.image, settings.objects, *([settings.licence] if settings.licence else [])):
        if column not in features:
            raise DataError(f"source: there is no column {column!r}; the folder has {', '.join(features)}")
    if not isinstance(features[settings.image], datasets.Image):
        raise DataError(f"source.image: column {settings.image!r} holds no images; name the column that does")
    struct = features[settings.objects]
    # A struct of lists, or (from some writers) a list of structs.
    inner = struct if isinstance(struct, dict) else getattr(struct, "feature", None)
    if not isinstance(inner, dict) or settings.boxes not in inner or settings.names not in inner:
        raise DataError(
            f"source.objects: column {settings.objects!r} is {struct}; it must be a struct with {settings.boxes!r} "
            f"and {settings.names!r}"
        )
    names = inner[settings.names]
    names = getattr(names, "feature", names)
    return tuple(names.names) if isinstance(names, datasets.ClassLabel) else ()


def _lists(struct: Any, settings: DatasetsSettings) -> tuple[list[Any], list[Any]]:
    if struct is None:
        return [], []
    if isinstance(struct, list):
        return [one[settings.boxes] for one in struct], [one[settings.names] for one in struct]
    return list(struct[settings.boxes] or ()), list(struct[settings.names] or ())


def _plain_or_none(name: Any) -> str:
    try:
        return plain_name(name) if isinstance(name, str) else ""
    except DataError:
        return ""
