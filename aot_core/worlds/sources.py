"""Where scenes come from: pictures by number, each an image with all its objects.

    source ----> Picture (image, scene) ----> extension ----> questions ----> implantation

The procedural source draws them; `coco` and `datasets_source` read them from annotated photographs.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from PIL import Image

from aot_core.contracts.prepare_data import ProceduralSettings
from aot_core.contracts.scene import Query, Scene, SceneObject
from aot_core.worlds.likeness import perceptual_hash
from aot_core.worlds.shapes import world
from aot_core.worlds.truth import truth

SOURCE_GRID = world.GRID - 1
"""Cells a side of a procedural source scene; extension adds a row and a column."""


@dataclass(frozen=True)
class Picture:
    """A scene and its pixels."""

    scene: Scene
    image: Image.Image
    """RGB, as large as the scene says."""
    doubtful: tuple[SceneObject, ...] = ()
    """Photographs: what may be seen without being annotated (crowds, implied parts, halves of things)."""
    backdrop: world.Backdrop | None = None
    """Procedural: the ground it is drawn on, so that it can be drawn again with other objects."""
    window: world.Cell = (0, 0)
    """Procedural: the cell of the whole world that this picture's upper left corner shows."""

    def with_objects(self, image: Image.Image, objects: tuple[SceneObject, ...]) -> "Picture":
        """The same scene with other pixels and objects."""
        return replace(self, image=image, scene=self.scene.model_copy(update={"objects": objects}))

    def settled(self, query: Query) -> str | None:
        """The truth of a query, None also where a doubtful object would change it."""
        certain = truth(query, self.scene.objects)
        if self.doubtful and truth(query, (*self.scene.objects, *self.doubtful)) != certain:
            return None
        return certain


class Unusable(NamedTuple):
    """A source picture that was left out, and why."""

    source_id: str
    reason: str
    detail: str


class Source(Protocol):
    """Source pictures by number, so that splits can share them out before any is opened."""

    @property
    def size(self) -> int | None:
        """How many pictures there are; None without end."""
        ...

    @property
    def names(self) -> tuple[str, ...]:
        """Every name that a thing may have; empty where things are told by attributes."""
        ...

    @property
    def kinds(self) -> Mapping[str, str]:
        """Name to the kind of thing it is a name of; empty where the source knows none."""
        ...

    @property
    def unusable(self) -> list[Unusable]:
        """What was left out, and is not counted by `size`, before any picture was opened."""
        ...

    def picture(self, index: int) -> Picture:
        """The picture of a number from 0; the same number gives the same picture.

        Raises RowError where this one picture cannot be used.
        """
        ...


@runtime_checkable
class Photographs(Source, Protocol):
    """A source of pictures that were there before: each is told by what it is made of, wherever it stands."""

    def content(self, index: int) -> tuple[str, str]:
        """A picture's name in plain letters, and the sha256 of that, its file and its annotations.

        Nothing is decoded. Raises RowError where the file cannot be read.
        """
        ...


class NamedByContent:
    """Photographs whose ids follow from their contents: numbers change when a folder grows."""

    def __init__(self, source: Photographs) -> None:
        self._source = source
        self.size, self.names, self.kinds, self.unusable = source.size, source.names, source.kinds, source.unusable

    def picture(self, index: int) -> Picture:
        """See `Source.picture`."""
        label, content = self._source.content(index)
        picture = self._source.picture(index)
        name = f"{label}-{content[:12]}"
        return replace(picture, scene=picture.scene.model_copy(update={"scene_id": name, "source_id": name}))


class ProceduralSource:
    """Endless views of 3 x 3 cells into worlds of 4 x 4 cells.

    A view starts at cell (0..1, 0..1) of its world and is drawn with the world's shading, so that what extension
    paints around it can continue it.
    """

    def __init__(self, settings: ProceduralSettings, seed: int) -> None:
        self._settings = settings
        self._seed = seed

    @property
    def size(self) -> int | None:
        return None

    @property
    def names(self) -> tuple[str, ...]:
        return ()

    @property
    def kinds(self) -> Mapping[str, str]:
        return {}

    @property
    def unusable(self) -> list[Unusable]:
        return []

    def picture(self, index: int) -> Picture:
        rng = np.random.default_rng([self._seed, index])
        least, most = self._settings.objects
        window = (int(rng.integers(2)), int(rng.integers(2)))
        cells = [(window[0] + row, window[1] + column) for row in range(SOURCE_GRID) for column in range(SOURCE_GRID)]
        objects = world.random_objects(rng, int(rng.integers(least, most + 1)), cells)
        backdrop = world.random_backdrop(rng)
        side = SOURCE_GRID * world.CELL
        top, left = window[0] * world.CELL, window[1] * world.CELL
        image = world.render(objects, backdrop).crop((left, top, left + side, top + side))
        name = f"procedural-{index:07d}"
        scene = Scene(
            scene_id=name,
            source_id=name,
            width=side,
            height=side,
            objects=tuple(move(thing, -left, -top) for thing in objects),
            licence="generated",
            source_hash=perceptual_hash(image),
        )
        return Picture(scene=scene, image=image, backdrop=backdrop, window=window)


def redraw(picture: Picture, objects: tuple[SceneObject, ...]) -> Picture:
    """A procedural picture with these objects instead of its own, drawn anew: the perfect edit."""
    assert picture.backdrop is not None, "only procedural pictures can be drawn again"
    top, left = picture.window[0] * world.CELL, picture.window[1] * world.CELL
    canvas = world.render([move(thing, left, top) for thing in objects], picture.backdrop)
    size = picture.scene.width, picture.scene.height
    return picture.with_objects(canvas.crop((left, top, left + size[0], top + size[1])), objects)


def move(thing: SceneObject, dx: float, dy: float) -> SceneObject:
    """The object, `dx` pixels to the right and `dy` down."""
    return thing.model_copy(update={"box": thing.box.shifted(dx, dy)})
