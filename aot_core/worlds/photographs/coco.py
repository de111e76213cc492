"""Photographs with boxes in COCO's instances format, read as a stream and strictly.

    instances.json --one pass a section--> photographs.sqlite (an index, in the work folder) --by number--> Picture

The file may be larger than the memory: what is kept of it lies in the index, which workers share. What is wrong with
the file itself (its shape, repeated ids, a path that climbs out) is refused with field and fix; what is wrong with one
photograph leaves that one out, with its reason, up to `source.max_rejected`. Boxes of crowds (`iscrowd`) are no
objects, but make questions about their category doubtful. Categories that are mere headings are no names
(`worlds.photographs.headings`), and what a federated data set says of its own coverage is heeded (`worlds.coverage`).
Images are turned upright by their EXIF orientation before anything looks at them.
"""

import json
import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import TypeVar

import ijson
from pydantic import ValidationError

from aot_core.contracts.prepare_data import CocoSettings
from aot_core.worlds.coverage import Coverage
from aot_core.worlds.images import MAX_PIXELS, DataError, RowError, image_size, open_image, safe_path
from aot_core.worlds.photographs.annotated import (
    Annotated,
    checked_box,
    content_of,
    file_id,
    photograph,
    plain_name,
    refuse_lookalikes,
)
from aot_core.worlds.photographs.coco_entries import AnnotationEntry, CategoryEntry, Entry, ImageEntry, LicenseEntry
from aot_core.worlds.photographs.headings import headings, implied_headings, kinds_of
from aot_core.worlds.photographs.lenient_json import open_json
from aot_core.worlds.sources import Picture, Unusable, refuse_if_too_many

INDEX = "photographs.sqlite"


_E = TypeVar("_E", bound=Entry)


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
        self._images = folder if Path(settings.images) == Path() else safe_path(folder, settings.images)
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
        # `as_uri` escapes what has a meaning in an address: folders may be named "scans #2".
        self._index = sqlite3.connect(f"{index.absolute().as_uri()}?mode=ro", uri=True, check_same_thread=False)
        rows = self._index.execute("SELECT name, supercategory, implied FROM categories ORDER BY number").fetchall()
        self._kinds = {name: kind for name, kind, _ in rows}
        self._implies = {name: tuple(json.loads(implied)) for name, _, implied in rows}
        ((self._size,),) = self._index.execute("SELECT count(*) FROM photographs").fetchall()

    @property
    def names(self) -> tuple[str, ...]:
        """Every category's name."""
        return tuple(self._kinds)

    @property
    def kinds(self) -> dict[str, str]:
        """Category name to supercategory; empty where the file has none, or none that tells categories apart."""
        return self._kinds

    @property
    def size(self) -> int | None:
        return self._size

    @property
    def unusable(self) -> list[Unusable]:
        """The photographs that the index left out."""
        return [Unusable(*row) for row in self._index.execute("SELECT source_id, reason, detail FROM unusable")]

    @property
    def max_rejected(self) -> float:
        return self._settings.max_rejected

    def content(self, index: int) -> tuple[str, str]:
        """See `Photographs.content`."""
        query = "SELECT file, width, height, licence, things, covers FROM photographs WHERE number = ?"
        file, *said = self._index.execute(query, (index,)).fetchone()
        return content_of(Path(file).stem, safe_path(self._images, file), said)

    def picture(self, index: int) -> Picture:
        query = "SELECT source_id, file, width, height, licence, things, covers FROM photographs WHERE number = ?"
        source_id, file, width, height, licence, things, covers = self._index.execute(query, (index,)).fetchone()
        image = open_image(self._images, file, self._max_pixels)
        if image.size != (width, height):
            raise RowError("wrong_size", _wrong_size(file, (width, height), image.size))
        annotated = [Annotated(tuple(box), name, bool(crowd)) for box, name, crowd in json.loads(things)]
        coverage = _coverage(covers, annotated)
        return photograph(
            image, source_id, annotated, licence, self._settings, implies=self._implies, coverage=coverage
        )


def _write_index(index: Path, annotations: Path, images: Path, settings: CocoSettings, max_pixels: int) -> None:
    """Go through the annotation file section by section and keep what is needed of it."""
    name = settings.annotations
    with closing(sqlite3.connect(index)) as db:
        db.executescript(
            """
            CREATE TABLE categories (number INTEGER PRIMARY KEY, id TEXT UNIQUE, name TEXT, supercategory TEXT,
                                     implied TEXT);
            CREATE TABLE images (place INTEGER PRIMARY KEY, id TEXT UNIQUE, file TEXT UNIQUE, width INTEGER,
                                 height INTEGER, licence TEXT, covers TEXT, source_id TEXT, reason TEXT, detail TEXT);
            CREATE TABLE annotations (id TEXT PRIMARY KEY, image TEXT, box TEXT, name TEXT, crowd INTEGER);
            CREATE TABLE photographs (number INTEGER PRIMARY KEY, source_id TEXT, file TEXT, width INTEGER,
                                      height INTEGER, licence TEXT, things TEXT, covers TEXT);
            """
        )
        categories = _index_categories(db, annotations, name)
        _index_images(db, annotations, name, images, categories, max_pixels)
        _index_annotations(db, annotations, name, categories)
        _refuse_crowds(db, name)
        _settle_headings(db)
        # What is left is numbered anew, in the file's order; things stand in the order of their ids, which are numbers
        # of any length, kept as text.
        db.executescript(
            """
            CREATE INDEX of_image ON annotations (image);
            INSERT INTO photographs (number, source_id, file, width, height, licence, things, covers)
                SELECT row_number() OVER (ORDER BY place) - 1, source_id, file, width, height, licence, (
                    SELECT json_group_array(json_array(json(box), name, crowd))
                    FROM (SELECT box, name, crowd FROM annotations WHERE image = images.id ORDER BY length(id), id)
                ), covers FROM images WHERE reason IS NULL;
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
    for place, entry in _section(annotations, name, "categories", CategoryEntry):
        if entry.id in found:
            raise DataError(f"{name}: categories[{place}].id: {entry.id} appears twice; ids must differ")
        try:
            found[entry.id] = plain_name(entry.name)
        except DataError as error:
            raise DataError(f"{name}: categories[{place}].name: {error}") from error
        row = (place, str(entry.id), found[entry.id], entry.supercategory or "", "[]")
        db.execute("INSERT INTO categories VALUES (?, ?, ?, ?, ?)", row)
    refuse_lookalikes(found.values(), f"{name}: categories")
    if not found:
        raise DataError(f"{name}: categories: a list with at least 1 item is required, {{id, name}}")
    return found


def _index_images(
    db: sqlite3.Connection, annotations: Path, name: str, images: Path, categories: Mapping[int, str], max_pixels: int
) -> None:
    licences = {str(entry.id): entry for _, entry in _section(annotations, name, "licenses", LicenseEntry)}
    place = -1
    for place, read in _section(annotations, name, "images", ImageEntry):
        field = f"{name}: images[{place}]"
        entry = read.model_copy(update={"file_name": _found_name(images, read)})
        reason, detail = _image_trouble(images, entry, field, max_pixels)
        source_id = file_id(Path(entry.file_name).stem, entry.id)
        licence = _licence(entry, licences.get(str(entry.license)))
        size = entry.width, entry.height
        covers = _covers(entry, categories)
        row = (place, str(entry.id), entry.file_name, *size, licence, covers, source_id, reason, detail)
        try:
            db.execute("INSERT INTO images VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
        except sqlite3.IntegrityError as error:
            # One photograph under two entries would have half of its boxes in each, and stand in two splits.
            what = "file_name" if "images.file" in str(error) else "id"
            value = entry.file_name if what == "file_name" else entry.id
            raise DataError(f"{field}.{what}: {value!r} appears twice; {what}s must differ") from error
    if place < 0:
        raise DataError(f"{name}: images: a list with at least 1 item is required, {{id, file_name, width, height}}")


def _index_annotations(db: sqlite3.Connection, annotations: Path, name: str, categories: dict[int, str]) -> None:
    place = -1
    for place, entry in _section(annotations, name, "annotations", AnnotationEntry):
        field = f"{name}: annotations[{place}]"
        query = "SELECT file, width, height, reason FROM images WHERE id = ?"
        image = db.execute(query, (str(entry.image_id),)).fetchone()
        if image is None:
            raise DataError(f"{field}.image_id: {entry.image_id} is not an image; add it to images or correct it")
        file, width, height, reason = image
        try:
            if entry.category_id not in categories:
                raise RowError(
                    "unknown_category",
                    f"{field}.category_id: {entry.category_id} is not a category; add it to categories or correct it",
                )
            box = checked_box(entry.bbox, (width, height), f"{field}.bbox", file)
        except RowError as error:
            if reason is None:
                row = (error.reason, str(error), str(entry.image_id))
                db.execute("UPDATE images SET reason = ?, detail = ? WHERE id = ?", row)
            continue
        thing = (json.dumps(box), categories[entry.category_id], int(bool(entry.iscrowd)))
        row = (str(entry.id), str(entry.image_id), *thing)
        try:
            db.execute("INSERT INTO annotations VALUES (?, ?, ?, ?, ?)", row)
        except sqlite3.IntegrityError as error:
            raise DataError(f"{field}.id: {entry.id} appears twice; ids must differ") from error
    if place < 0:
        raise DataError(f"{name}: annotations: a list with at least 1 item is required, as questions are about boxes")


def _refuse_crowds(db: sqlite3.Connection, name: str) -> None:
    boxes, crowds = db.execute("SELECT count(*), coalesce(sum(crowd), 0) FROM annotations").fetchone()
    if boxes and boxes == crowds:
        # Tools that write masks as run lengths set it on single things too.
        raise DataError(
            f"{name}: annotations: {crowds} of {boxes} boxes are crowds (iscrowd 1), which do not count as objects; "
            "set iscrowd to 0 where a box holds one thing"
        )


def _settle_headings(db: sqlite3.Connection) -> None:
    """Take categories that are mere headings out, and note what the others imply."""
    parents = dict(db.execute("SELECT name, supercategory FROM categories ORDER BY number").fetchall())
    annotated = {name for (name,) in db.execute("SELECT DISTINCT name FROM annotations")}
    implied = implied_headings(parents, annotated)
    for heading in headings(parents, annotated):
        db.execute("DELETE FROM categories WHERE name = ?", (heading,))
        del parents[heading]
    for name, kind in kinds_of(parents).items():
        row = (kind, json.dumps(implied.get(name, ())), name)
        db.execute("UPDATE categories SET supercategory = ?, implied = ? WHERE name = ?", row)


def _covers(entry: ImageEntry, categories: Mapping[int, str]) -> str | None:
    """What an image's annotations cover, as JSON: the names that are absent, and those not all boxed; None where it
    does not say."""
    if not entry.federated:
        return None
    lists = (entry.neg_category_ids or (), entry.not_exhaustive_category_ids or ())
    return json.dumps([sorted({categories[number] for number in ids if number in categories}) for ids in lists])


def _coverage(covers: str | None, things: Sequence[Annotated]) -> Coverage | None:
    if covers is None:
        return None
    absent, partial = (frozenset(names) for names in json.loads(covers))
    present = frozenset(thing.name for thing in things)
    # A name that has a box and is said to be absent has at least one thing, and how many is not known.
    return Coverage(present, absent - present, partial | (absent & present))


def _found_name(images: Path, entry: ImageEntry) -> str:
    """The file that an entry means, as a path inside `images`. A path that climbs out refuses the whole source.

    Where no file of the very name is there, a backslash parts folders. Only what an address ends with may lie in
    `images` itself: of a file_name's folders none is dropped, as two of them may hold other files of one name.
    """
    name = entry.file_name
    others = [name.replace("\\", "/"), *([name.rpartition("/")[2]] if entry.by_address else [])]
    if not safe_path(images, name).is_file():
        name = next((other for other in others if safe_path(images, other).is_file()), name)
    # The same photograph under two spellings would stand in two splits.
    return name if "\\" in name else os.path.normpath(name)


def _section(path: Path, name: str, section: str, entry: type[_E]) -> Iterator[tuple[int, _E]]:
    """The entries of one of the file's lists, checked one by one."""
    place = -1
    try:
        with open_json(path) as file:
            # Not as floats at once: the parser would refuse whole numbers beyond 64 bits.
            for place, value in enumerate(ijson.items(file, f"{section}.item")):
                yield place, entry.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        field = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"])
        raise DataError(
            f"{name}: {section}[{place}]{field}: {first['msg']}; correct it to COCO's instances format"
        ) from error
    except (ijson.JSONError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{name} is not JSON ({error}); export it again in COCO's instances format") from error


def _image_trouble(folder: Path, entry: ImageEntry, field: str, max_pixels: int) -> tuple[str | None, str | None]:
    """Why a photograph cannot be used, as far as its header tells: a word and the details; None for a good one."""
    try:
        found = image_size(folder, entry.file_name, max_pixels)
    except RowError as error:
        detail = str(error)
        if error.reason == "missing" and (hint := _where_else(folder, entry.file_name)):
            detail += f"; {hint}"
        return error.reason, detail
    if found != (entry.width, entry.height):
        return "wrong_size", f"{field}.width, .height: " + _wrong_size(
            entry.file_name, (entry.width, entry.height), found
        )
    return None, None


def _where_else(folder: Path, name: str) -> str:
    """Where a file that is missing from the folder of images lies instead, as far as a look tells."""
    for up in folder.parents[:2]:
        inside = up / name
        if ".." not in Path(name).parts and inside.is_file():
            return f'it lies in {up}, so set source.images to that folder ("." for the source folder itself)'
    return ""


def _wrong_size(file: str, said: tuple[int, int], found: tuple[int, int]) -> str:
    return (
        f"{said[0]}x{said[1]}, but {file!r}, turned upright by its EXIF orientation, is {found[0]}x{found[1]}; correct "
        "the entry and its boxes"
    )


def _licence(entry: ImageEntry, known: LicenseEntry | None) -> str:
    """As the file says it: the image's own words, else the name and address of its licence."""
    if isinstance(entry.source, str) and entry.source not in ("", "NaN"):
        return entry.source
    if known is not None:
        return " ".join(part for part in (known.name, known.url) if part)
    return str(entry.license or "")
