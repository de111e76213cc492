"""Scene extension by the painter: ground around a view of a world, and now and then a further object."""

from dataclasses import replace

import numpy as np

from aot_core.contracts.prepare_data import ExtensionSettings
from aot_core.contracts.scene import Box
from aot_core.worlds.extension import Extended, ExtensionCheck, composition, on_canvas
from aot_core.worlds.shapes import world
from aot_core.worlds.shapes.source import DrawnPicture
from aot_core.worlds.sources import Picture, move


def extend_world(rng: np.random.Generator, source: DrawnPicture, settings: ExtensionSettings) -> Extended:
    """The whole world of 4 x 4 cells around a view of it, with new objects in the new cells."""
    top, left = source.window[0] * world.CELL, source.window[1] * world.CELL
    original = Box(x=left, y=top, width=source.scene.width, height=source.scene.height)
    outside = [cell for cell in world.all_cells() if world.cell_box(cell).overlap(original) == 0]
    least, most = settings.objects
    count = int(rng.integers(least, most + 1))
    # Whether a new object repeats an old one is not looked at here: that is what the duplication check is for.
    new = world.random_objects(rng, count, outside)
    canvas = world.render(new, source.backdrop)
    canvas.paste(source.image, (left, top))
    objects = tuple(move(thing, left, top) for thing in source.scene.objects) + new
    return Extended(replace(on_canvas(source, canvas, objects), window=(0, 0)), original)


def _duplication(source: Picture, extended: Extended, _settings: ExtensionSettings) -> str | None:
    """No new object is a second copy of an old one, by name."""
    old = {thing.name for thing in source.scene.objects}
    new = extended.picture.scene.objects[len(source.scene.objects) :]
    return "a new object repeats an old one" if any(thing.name in old for thing in new) else None


def _realism(source: Picture, extended: Extended, _settings: ExtensionSettings) -> str | None:
    """New objects lie where a painter would put them: of a common size, apart from each other
    and outside the original."""
    new = extended.picture.scene.objects[len(source.scene.objects) :]
    boxes = [extended.original, *(thing.box for thing in new)]
    apart = all(a.overlap(b) == 0 for i, a in enumerate(boxes) for b in boxes[i + 1 :])
    common = all(world.MIN_SIDE <= thing.box.width <= world.MAX_SIDE for thing in new)
    return None if apart and common else "a new object lies where none can"


CHECKS: dict[str, ExtensionCheck] = {"composition": composition, "duplication": _duplication, "realism": _realism}
"""The paper's three checks by name, in its order."""
