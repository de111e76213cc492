"""Photographs with boxes in COCO's instances format, read strictly: bad input names its field and the fix.

All of the annotation file, and the size of every image, is checked when the source is opened, so that
nothing is half made when something is wrong. Boxes of crowds (`iscrowd`) are no objects, but make questions about
their category doubtful. Images are turned upright by their EXIF orientation before anything looks at them.
"""

import json
import re
from pathlib import Path
from typing import Annotated, Any

from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from aot_core.contracts.prepare_data import CocoSettings
from aot_core.contracts.scene import Box, Scene, SceneObject
from aot_core.data.images import MAX_PIXELS, DataError, image_size, open_image, safe_path
from aot_core.data.places import with_place
from aot_core.data.sources import Picture

Side = Annotated[float, Field(allow_inf_nan=False)]


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
    bbox: tuple[Side, Side, Side, Side]
    iscrowd: int = 0


class _Category(_Entry):
    id: int
    name: str = Field(min_length=1)
    supercategory: str = ""


class _Instances(_Entry):
    images: list[_Image] = Field(min_length=1)
    annotations: list[_Annotation]
    categories: list[_Category] = Field(min_length=1)


class CocoSource:
    """The pictures of a COCO folder, numbered in the annotation file's order.

    Raises DataError for anything in the folder that is not as it says: see the functions below.
    """

    def __init__(self, folder: Path, settings: CocoSettings, max_pixels: int = MAX_PIXELS) -> None:
        if not folder.is_dir():
            raise DataError(f"source folder {folder} does not exist; give a folder in COCO format")
        self._settings = settings
        self._max_pixels = max_pixels
        # Both names come from a config: neither may leave the folder.
        self._images = safe_path(folder, settings.images)
        self._instances = _read(folder, settings.annotations)
        self._names = {category.id: category.name for category in self._instances.categories}
        _check_ids(self._instances, settings.annotations)
        for index, entry in enumerate(self._instances.images):
            _check_image(self._images, entry, f"{settings.annotations}: images[{index}]", max_pixels)
        _check_annotations(self._instances, settings.annotations)
        self._by_image: dict[int, list[_Annotation]] = {entry.id: [] for entry in self._instances.images}
        for annotation in self._instances.annotations:
            self._by_image[annotation.image_id].append(annotation)

    @property
    def names(self) -> tuple[str, ...]:
        """Every category's name."""
        return tuple(self._names.values())

    @property
    def kinds(self) -> dict[str, str]:
        """Category name to supercategory; empty where the file has none."""
        return {category.name: category.supercategory for category in self._instances.categories}

    @property
    def size(self) -> int | None:
        return len(self._instances.images)

    def picture(self, index: int) -> Picture:
        entry = self._instances.images[index]
        image = open_image(self._images, entry.file_name, self._max_pixels)
        if self._settings.max_side:
            image.thumbnail((self._settings.max_side, self._settings.max_side), Image.Resampling.LANCZOS)
        scale = image.width / entry.width, image.height / entry.height
        objects, doubtful = [], []
        for annotation in self._by_image[entry.id]:
            thing = SceneObject(
                box=_scaled_box(annotation.bbox, scale), attributes={"name": self._names[annotation.category_id]}
            )
            (doubtful if annotation.iscrowd else objects).append(with_place(thing, image.size))
        name = re.sub(r"[^A-Za-z0-9_-]+", "-", Path(entry.file_name).stem)
        scene = Scene(
            scene_id=f"{name}-{entry.id}",
            source_id=f"{name}-{entry.id}",
            width=image.width,
            height=image.height,
            objects=tuple(objects),
            licence=entry.source or str(entry.license or ""),
        )
        implied = implied_objects(scene.objects, self._settings.implies)
        return Picture(scene=scene, image=image, doubtful=(*doubtful, *implied))


def _scaled_box(bbox: tuple[float, float, float, float], scale: tuple[float, float]) -> Box:
    x, y, width, height = bbox
    return Box(x=x * scale[0], y=y * scale[1], width=width * scale[0], height=height * scale[1])


def implied_objects(objects: tuple[SceneObject, ...], implies: dict[str, tuple[str, ...]]) -> tuple[SceneObject, ...]:
    """What the objects may show without a box of its own, each at the box of what implies it."""
    return tuple(
        SceneObject(box=thing.box, attributes={"name": name})
        for thing in objects
        for name in implies.get(thing.attributes["name"], ())
    )


def _read(folder: Path, annotations: str) -> _Instances:
    path = safe_path(folder, annotations)
    if not path.is_file():
        raise DataError(f"annotation file {annotations!r} is missing from {folder}; set source.annotations to its name")
    try:
        return _Instances.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{annotations} is not JSON ({error}); export it again in COCO's instances format") from error
    except ValidationError as error:
        first = error.errors()[0]
        field = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"]).lstrip(".")
        raise DataError(
            f"{annotations}: {field or 'the file'}: {first['msg']}; correct it to COCO's instances format"
        ) from error


def _check_ids(instances: _Instances, annotations: str) -> None:
    for group in ("images", "annotations", "categories"):
        seen: set[int] = set()
        for index, entry in enumerate(getattr(instances, group)):
            if entry.id in seen:
                raise DataError(f"{annotations}: {group}[{index}].id: {entry.id} is there twice; ids must differ")
            seen.add(entry.id)


def _check_annotations(instances: _Instances, annotations: str) -> None:
    """Every annotation's image and category exist, and its box lies inside its image."""
    images = {entry.id: entry for entry in instances.images}
    categories = {category.id for category in instances.categories}
    for index, annotation in enumerate(instances.annotations):
        field = f"{annotations}: annotations[{index}]"
        if annotation.category_id not in categories:
            raise DataError(
                f"{field}.category_id: {annotation.category_id} is no category; add it to categories or correct it"
            )
        entry = images.get(annotation.image_id)
        if entry is None:
            raise DataError(f"{field}.image_id: {annotation.image_id} is no image; add it to images or correct it")
        x, y, width, height = annotation.bbox
        # Half a pixel of tolerance: annotation tools round.
        if (
            x < 0
            or y < 0
            or width <= 0
            or height <= 0
            or x + width > entry.width + 0.5
            or y + height > entry.height + 0.5
        ):
            raise DataError(
                f"{field}.bbox: {list(annotation.bbox)} (x, y, width, height) reaches outside "
                f"the {entry.width}x{entry.height} image {entry.file_name!r} or is empty; correct the box"
            )


def _check_image(folder: Path, entry: _Image, field: str, max_pixels: int) -> None:
    found = image_size(folder, entry.file_name, max_pixels)
    if found != (entry.width, entry.height):
        raise DataError(
            f"{field}.width, .height: {entry.width}x{entry.height}, but {entry.file_name!r}, turned upright by its "
            f"EXIF orientation, is {found[0]}x{found[1]}; correct the entry and its boxes"
        )
