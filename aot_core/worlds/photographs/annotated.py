"""What all sources of annotated photographs share: from an image and its annotations to a Picture.

An annotation that cannot be right (a box outside the image, a category that is none) makes its whole photograph
unusable: a question about the rest could be wrong. The photograph is left out with its reason, and where too many are,
the source is refused.
"""

import math
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from aot_core.contracts.base import sha256_of
from aot_core.contracts.prepare_data import CocoSettings, DatasetsSettings
from aot_core.contracts.scene import Box, Scene, SceneObject
from aot_core.worlds.coverage import Coverage
from aot_core.worlds.images import DataError, RowError
from aot_core.worlds.likeness import perceptual_hash
from aot_core.worlds.photographs.places import with_place
from aot_core.worlds.sources import Picture


class Annotated(NamedTuple):
    """What an annotation says: a box (x, y, width, height in pixels of the full upright image) and its name."""

    box: tuple[float, float, float, float]
    name: str
    crowd: bool = False


def photograph(
    image: Image.Image,
    source_id: str,
    things: Sequence[Annotated],
    licence: str,
    settings: CocoSettings | DatasetsSettings,
    *,
    implies: Mapping[str, tuple[str, ...]] | None = None,
    coverage: Coverage | None = None,
) -> Picture:
    """The picture of a photograph, scaled down as the settings say, its boxes with it.

    Args:
        implies: name to names that it implies, besides those of the settings.
        coverage: what the annotations cover; None where that is everything.
    """
    full = image.size
    source_hash = perceptual_hash(image)
    if settings.max_side:
        image.thumbnail((settings.max_side, settings.max_side), Image.Resampling.LANCZOS)
    scale = image.width / full[0], image.height / full[1]
    objects, doubtful = [], []
    for thing in things:
        x, y, width, height = thing.box
        box = Box(x=x * scale[0], y=y * scale[1], width=width * scale[0], height=height * scale[1])
        put = with_place(SceneObject(box=box, attributes={"name": thing.name}), image.size)
        (doubtful if thing.crowd else objects).append(put)
    scene = Scene(
        scene_id=source_id,
        source_id=source_id,
        width=image.width,
        height=image.height,
        objects=tuple(objects),
        licence=licence,
        source_hash=source_hash,
    )
    # Configs spell names as the file does; a crowd shows what its members show.
    by_hand = {plain_name(name): tuple(map(plain_name, implied)) for name, implied in settings.implies.items()}
    shown = (*objects, *doubtful)
    implied = (*implied_objects(shown, by_hand), *implied_objects(shown, implies or {}))
    coverages = () if coverage is None else (coverage,)
    return Picture(scene=scene, image=image, doubtful=(*doubtful, *implied), coverages=coverages)


def implied_objects(objects: Sequence[SceneObject], implies: Mapping[str, tuple[str, ...]]) -> tuple[SceneObject, ...]:
    """What the objects may show without a box of its own, each at the box of what implies it."""
    return tuple(
        SceneObject(box=thing.box, attributes={"name": name})
        for thing in objects
        for name in implies.get(thing.attributes["name"], ())
    )


def checked_box(
    box: Sequence[float], size: tuple[int, int], field: str, image: str
) -> tuple[float, float, float, float]:
    """The box, cut to the image, if it reaches beyond it by half a pixel at most; else RowError naming the field."""
    try:
        x, y, width, height = (float(v) for v in box)
    except (TypeError, ValueError, OverflowError) as error:
        raise RowError("bad_box", f"{field}: {box!r} is not four numbers; correct the box") from error
    told = [x, y, width, height]
    if not all(math.isfinite(v) for v in (x, y, width, height)):
        raise RowError("bad_box", f"{field}: {told} holds what is not a finite number; correct the box")
    # Half a pixel of tolerance on every side: annotation tools round.
    outside = min(x, y) < -0.5 or x + width > size[0] + 0.5 or y + height > size[1] + 0.5
    left, top, right, bottom = max(x, 0.0), max(y, 0.0), min(x + width, size[0]), min(y + height, size[1])
    if outside or right <= left or bottom <= top:
        raise RowError(
            "bad_box",
            f"{field}: {told} (x, y, width, height) reaches outside the {size[0]}x{size[1]} image {image!r} or "
            "is empty; correct the box",
        )
    cut = (left, top) != (x, y) or (right, bottom) != (x + width, y + height)
    return (left, top, right - left, bottom - top) if cut else (x, y, width, height)


def plain_name(name: str) -> str:
    """A category's name as questions and instructions say it: one line of printable text, no full stop, no underscore.

    Raises DataError where nothing is left of it.
    """
    text = unicodedata.normalize("NFC", name).replace(".", " ").replace("_", " ")
    plain = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    if not re.search(r"\w", plain):
        raise DataError(f"category name {name!r} has no letters or digits; give it a name in words")
    return plain


def refuse_lookalikes(names: Iterable[str], field: str) -> None:
    """Raises DataError where two names differ in case alone: "is there a Dog" beside a dog has no truth."""
    known: dict[str, str] = {}
    for name in names:
        other = known.setdefault(name.casefold(), name)
        if other != name:
            raise DataError(f"{field}: {other!r} and {name!r} differ only in case; give both the same name")


def file_id(stem: str, number: object) -> str:
    """A source's id: from the file's name what is plain, and its number, so that no two share one."""
    return f"{re.sub(r'[^A-Za-z0-9_-]+', '-', stem)[:60]}-{number}"


def content_of(stem: str, image: Path | bytes, said: object) -> tuple[str, str]:
    """A photograph's name in plain letters, and the sha256 of that, the image file and what is said of it.

    Raises RowError where the file cannot be read.
    """
    label = file_id(stem, "").rstrip("-")
    try:
        content = image if isinstance(image, bytes) else image.read_bytes()
    except OSError as error:
        raise RowError("missing", f"image {str(image)!r} cannot be read ({error}); add the file, or drop it") from error
    return label, sha256_of({"name": label, "image": sha256(content).hexdigest(), "said": repr(said)})
