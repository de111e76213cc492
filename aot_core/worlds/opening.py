"""Which world a config's source, a sample, or a picture and its question belong to; decided only here.

Imports without torch; a world is imported when it is opened, the other one is not.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from PIL import Image

from aot_core.contracts.prepare_data import PrepareDataConfig
from aot_core.contracts.scene import Box, Sample

if TYPE_CHECKING:
    from aot_core.worlds.protocol import Reading, World
    from aot_core.worlds.sources import Source


def shapes() -> "World":
    """Scenes that the project draws."""
    from aot_core.worlds.shapes.domain import Shapes

    return Shapes()


def photographs() -> "World":
    """Annotated photographs."""
    from aot_core.worlds.photographs.domain import Photographs

    return Photographs()


def world_from(source: Literal["procedural", "coco", "datasets"]) -> "World":
    """The world that a source of this type (`prepare_data.source.type`) gives pictures of."""
    return shapes() if source == "procedural" else photographs()


def world_of(sample: Sample) -> "World":
    """The world of a sample: things in drawn scenes have a colour and a shape, in photographs a name."""
    drawn = all({"colour", "shape"} <= set(thing.attributes) for thing in sample.scene.objects)
    return shapes() if drawn else photographs()


def read(image: Image.Image, question: str, answer: str, boxes: tuple[Box, ...]) -> "Reading":
    """A user's own picture and question, read by the first world that they belong to.

    Raises ProbeError where they cannot be used. Arguments as of `World.read`.
    """
    for world in (shapes(), photographs()):
        reading = world.read(image, question, answer, boxes)
        if reading is not None:
            return reading
    raise AssertionError("every picture is a photograph")


def open_source(config: PrepareDataConfig, folder: Path | None, work: Path) -> "Source":
    """The config's source. Photographs are indexed in the folder `work`, once for all that ask.

    Raises DataError where a source of photographs has no folder or a bad one.
    """
    return world_from(config.source.type).open_source(config, folder, work)
