"""Photographs with boxes in COCO's instances format, read as a stream and strictly.

    instances.json --one pass a section--> photographs.sqlite (an index, in the work folder) --by number--> Picture

The file may be larger than the memory: what is kept of it lies in the index, which workers share. What is wrong with
the file itself (its shape, repeated ids, a path that climbs out) is refused with field and fix; what is wrong with one
photograph leaves that one out, with its reason, up to `source.max_rejected`. Boxes of crowds (`iscrowd`) are no
objects, but make questions about their category doubtful. Images are turned upright by their EXIF orientation before
anything looks at them.
"""

import json
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, TypeVar

import ijson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from aot_core.contracts.prepare_data import CocoSettings
from aot_core.worlds.images import MAX_PIXELS, DataError, RowError, image_size, open_image, safe_path
from aot_core.worlds.photographs.annotated import (
    Annotated,
    checked_box,
    content_of,
    file_id,
    photograph,
    plain_name,
    refuse_if_too_many,
    refuse_lookalikes,
)
from aot_core.worlds.sources import Picture, Unusable

INDEX = "photographs.sqlite"


class _Entry(BaseModel):
    # COCO files carry many more fields than are needed here.
    model_config = ConfigDict(extra="ignore", frozen=True)


class _Image(_Entry):
    id: int
    file_name: str
    width: int = Field(gt=0)
    height: int = Field(gt=0)
    license: Any = None
    source: str = ""


class _Annotation(_Entry):
    id: int
    image_id: int
    category_id: int
    bbox: Any = None
    iscrowd: int = 0


class _Category(_Entry):
    id: int
    name: str = Field(min_length=1)
    supercategory: str = ""


class _License(_Entry):
    id: Any
    name: str = ""
    url: str = ""


_E = TypeVar("_E", bound=_Entry)


class CocoSource:
    """The pictures of a COCO folder, numbered in the annotation file's order.

    Raises DataError for an annotation file that is not as it should be, and where more photographs than
    `settings.max_rejected` allows cannot be used.
    """

    def __init__(self, folder: Path, settings: CocoSettings, work: Path, max_pixels: int = MAX_PIXELS) -> None:
        if not folder.is_dir():
            raise DataError(f"source folder {folder} does not exist; give a folder in COCO format")
        self._settings = settings
        self._max_pixels = max_pixels
        # Both names come from a config: neither may leave the folder.
        self._images = safe_path(folder, settings.images)
        annotations = safe_path(folder, settings.annotations)
        if not annotations.is_file():
            raise DataError(
                f"annotation file {settings.annotations!r} is missing from {folder}; set source.annotations to its name"
            )
        index = work / INDEX
        if not index.is_file():
            work.mkdir(parents=True, exist_ok=True)
            partial = index.with_name(f"{INDEX}.{os.getpid()}")
            try:
                _write_index(partial, annotations, self._images, settings, max_pixels)
                partial.replace(index)
            finally:
                partial.unlink(missing_ok=True)
        self._index = sqlite3.connect(f"file:{index}?mode=ro", uri=True, check_same_thread=False)
        categories = self._index.execute("SELECT name, supercategory FROM categories ORDER BY number").fetchall()
        self._kinds = dict(categories)
        ((self._size,),) = self._index.execute("SELECT count(*) FROM photographs").fetchall()

    @property
    def names(self) -> tuple[str, ...]:
        """Every category's name."""
        return tuple(self._kinds)

    @property
    def kinds(self) -> dict[str, str]:
        """Category name to supercategory; empty where the file has none."""
        return self._kinds

    @property
    def size(self) -> int | None:
        return self._size

    @property
    def unusable(self) -> list[Unusable]:
        """The photographs that the index left out."""
        return [Unusable(*row) for row in self._index.execute("SELECT source_id, reason, detail FROM unusable")]

    def content(self, index: int) -> tuple[str, str]:
        """See `Photographs.content`."""
        query = "SELECT file, width, height, licence, things FROM photographs WHERE number = ?"
        file, *said = self._index.execute(query, (index,)).fetchone()
        return content_of(Path(file).stem, safe_path(self._images, file), said)

    def picture(self, index: int) -> Picture:
        query = "SELECT source_id, file, width, height, licence, things FROM photographs WHERE number = ?"
        source_id, file, width, height, licence, things = self._index.execute(query, (index,)).fetchone()
        image = open_image(self._images, file, self._max_pixels)
        if image.size != (width, height):
            raise RowError("wrong_size", _wrong_size(file, (width, height), image.size))
        annotated = [Annotated(tuple(box), name, bool(crowd)) for box, name, crowd in json.loads(things)]
        return photograph(image, source_id, annotated, licence, self._settings)


def _write_index(index: Path, annotations: Path, images: Path, settings: CocoSettings, max_pixels: int) -> None:
    """Go through the annotation file section by section and keep what is needed of it."""
    name = settings.annotations
    with closing(sqlite3.connect(index)) as db:
        db.executescript(
            """
            CREATE TABLE categories (number INTEGER PRIMARY KEY, id INTEGER UNIQUE, name TEXT, supercategory TEXT);
            CREATE TABLE images (place INTEGER PRIMARY KEY, id INTEGER UNIQUE, file TEXT UNIQUE, width INTEGER,
                                 height INTEGER, licence TEXT, source_id TEXT, reason TEXT, detail TEXT);
            CREATE TABLE annotations (id INTEGER PRIMARY KEY, image INTEGER, box TEXT, name TEXT, crowd INTEGER);
            CREATE TABLE photographs (number INTEGER PRIMARY KEY, source_id TEXT, file TEXT, width INTEGER,
                                      height INTEGER, licence TEXT, things TEXT);
            """
        )
        categories = _index_categories(db, annotations, name)
        _index_images(db, annotations, name, images, max_pixels)
        _index_annotations(db, annotations, name, categories)
        # What is left is numbered anew, in the file's order.
        db.executescript(
            """
            CREATE INDEX of_image ON annotations (image);
            INSERT INTO photographs (number, source_id, file, width, height, licence, things)
                SELECT row_number() OVER (ORDER BY place) - 1, source_id, file, width, height, licence, (
                    SELECT json_group_array(json_array(json(box), name, crowd))
                    FROM (SELECT box, name, crowd FROM annotations WHERE image = images.id ORDER BY id)
                ) FROM images WHERE reason IS NULL;
            CREATE TABLE unusable AS
                SELECT source_id, reason, detail FROM images WHERE reason IS NOT NULL ORDER BY place;
            """
        )
        total, left_out = (db.execute(f"SELECT count(*) FROM {t}").fetchone()[0] for t in ("images", "unusable"))
        first = db.execute("SELECT source_id, reason, detail FROM unusable LIMIT ?", (max(3, left_out),))
        refuse_if_too_many([Unusable(*row) for row in first], total, settings.max_rejected)
        db.executescript("DROP TABLE annotations; DROP TABLE images; VACUUM;")
        db.commit()


def _index_categories(db: sqlite3.Connection, annotations: Path, name: str) -> dict[int, str]:
    found: dict[int, str] = {}
    for place, entry in _section(annotations, name, "categories", _Category):
        if entry.id in found:
            raise DataError(f"{name}: categories[{place}].id: {entry.id} is there twice; ids must differ")
        try:
            found[entry.id] = plain_name(entry.name)
        except DataError as error:
            raise DataError(f"{name}: categories[{place}].name: {error}") from error
        row = (place, entry.id, found[entry.id], entry.supercategory)
        db.execute("INSERT INTO categories VALUES (?, ?, ?, ?)", row)
    refuse_lookalikes(found.values(), f"{name}: categories")
    if not found:
        raise DataError(f"{name}: categories: a list with at least 1 item is required, {{id, name}}")
    return found


def _index_images(db: sqlite3.Connection, annotations: Path, name: str, images: Path, max_pixels: int) -> None:
    licences = {entry.id: entry for _, entry in _section(annotations, name, "licenses", _License)}
    place = -1
    for place, entry in _section(annotations, name, "images", _Image):
        field = f"{name}: images[{place}]"
        safe_path(images, entry.file_name)  # A path that climbs out refuses the whole source.
        reason, detail = _image_trouble(images, entry, field, max_pixels)
        source_id = file_id(Path(entry.file_name).stem, entry.id)
        licence = _licence(entry, licences.get(entry.license))
        row = (place, entry.id, entry.file_name, entry.width, entry.height, licence, source_id, reason, detail)
        try:
            db.execute("INSERT INTO images VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
        except sqlite3.IntegrityError as error:
            # One photograph under two entries would have half of its boxes in each, and stand in two splits.
            what = "file_name" if "images.file" in str(error) else "id"
            value = entry.file_name if what == "file_name" else entry.id
            raise DataError(f"{field}.{what}: {value!r} is there twice; {what}s must differ") from error
    if place < 0:
        raise DataError(f"{name}: images: a list with at least 1 item is required, {{id, file_name, width, height}}")


def _index_annotations(db: sqlite3.Connection, annotations: Path, name: str, categories: dict[int, str]) -> None:
    place = -1
    for place, entry in _section(annotations, name, "annotations", _Annotation):
        field = f"{name}: annotations[{place}]"
        query = "SELECT file, width, height, reason FROM images WHERE id = ?"
        image = db.execute(query, (entry.image_id,)).fetchone()
        if image is None:
            raise DataError(f"{field}.image_id: {entry.image_id} is no image; add it to images or correct it")
        file, width, height, reason = image
        try:
            if entry.category_id not in categories:
                raise RowError(
                    "unknown_category",
                    f"{field}.category_id: {entry.category_id} is no category; add it to categories or correct it",
                )
            box = checked_box(entry.bbox, (width, height), f"{field}.bbox", file)
        except RowError as error:
            if reason is None:
                row = (error.reason, str(error), entry.image_id)
                db.execute("UPDATE images SET reason = ?, detail = ? WHERE id = ?", row)
            continue
        row = (entry.id, entry.image_id, json.dumps(box), categories[entry.category_id], int(bool(entry.iscrowd)))
        try:
            db.execute("INSERT INTO annotations VALUES (?, ?, ?, ?, ?)", row)
        except sqlite3.IntegrityError as error:
            raise DataError(f"{field}.id: {entry.id} is there twice; ids must differ") from error
    if place < 0:
        raise DataError(f"{name}: annotations: a list with at least 1 item is required, as no box is no question")


def _section(path: Path, name: str, section: str, entry: type[_E]) -> Iterator[tuple[int, _E]]:
    """The entries of one of the file's lists, checked one by one."""
    place = -1
    try:
        with path.open("rb") as file:
            for place, value in enumerate(ijson.items(file, f"{section}.item", use_float=True)):
                yield place, entry.model_validate(value)
    except (ijson.JSONError, UnicodeDecodeError) as error:
        raise DataError(f"{name} is not JSON ({error}); export it again in COCO's instances format") from error
    except ValidationError as error:
        first = error.errors()[0]
        field = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"])
        raise DataError(
            f"{name}: {section}[{place}]{field}: {first['msg']}; correct it to COCO's instances format"
        ) from error


def _image_trouble(folder: Path, entry: _Image, field: str, max_pixels: int) -> tuple[str | None, str | None]:
    """Why a photograph cannot be used, as far as its header tells: a word and the details; None for a good one."""
    try:
        found = image_size(folder, entry.file_name, max_pixels)
    except RowError as error:
        return error.reason, str(error)
    if found != (entry.width, entry.height):
        return "wrong_size", f"{field}.width, .height: " + _wrong_size(
            entry.file_name, (entry.width, entry.height), found
        )
    return None, None


def _wrong_size(file: str, said: tuple[int, int], found: tuple[int, int]) -> str:
    return (
        f"{said[0]}x{said[1]}, but {file!r}, turned upright by its EXIF orientation, is {found[0]}x{found[1]}; correct "
        "the entry and its boxes"
    )


def _licence(entry: _Image, known: _License | None) -> str:
    """As the file says it: the image's own words, else the name and address of its licence."""
    if entry.source:
        return entry.source
    if known is not None:
        return " ".join(part for part in (known.name, known.url) if part)
    return str(entry.license or "")
