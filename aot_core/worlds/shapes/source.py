"""The source of drawn scenes: pictures of coloured shapes by number, without end."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from aot_core.contracts.prepare_data import ProceduralSettings
from aot_core.contracts.scene import Scene, SceneObject
from aot_core.worlds.likeness import perceptual_hash
from aot_core.worlds.shapes import world
from aot_core.worlds.sources import Picture, Unusable, move

SOURCE_GRID = world.GRID - 1
"""Cells a side of a procedural source scene; extension adds a row and a column."""


@dataclass(frozen=True, kw_only=True)
class DrawnPicture(Picture):
    """A picture that can be drawn again with other objects."""

    backdrop: world.Backdrop
    """The ground it is drawn on."""
    window: world.Cell = (0, 0)
    """The cell of the whole world that the picture's upper left corner shows."""


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

    @property
    def max_rejected(self) -> float:
        return 0.0

    def picture(self, index: int) -> DrawnPicture:
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
        return DrawnPicture(scene=scene, image=image, backdrop=backdrop, window=window)


def redraw(picture: DrawnPicture, objects: tuple[SceneObject, ...]) -> DrawnPicture:
    """The picture with these objects instead of its own, drawn anew: the perfect edit."""
    top, left = picture.window[0] * world.CELL, picture.window[1] * world.CELL
    canvas = world.render([move(thing, left, top) for thing in objects], picture.backdrop)
    size = picture.scene.width, picture.scene.height
    return picture.with_objects(canvas.crop((left, top, left + size[0], top + size[1])), objects)
