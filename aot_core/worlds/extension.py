"""Scene extension: a source picture on a larger canvas, which then has room for distractors.

    source picture ----extend----> extended picture ----three checks----> accepted, or rejected for a reason

How a picture is extended, and what is checked, each world says (`shapes.extension`, `photographs.extension`). The
checks are the paper's (composition, duplication, realism), by geometry and pixels; an MLLM may judge after them
(`aot_core.worlds.checker`).
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import TypeVar

from PIL import Image

from aot_core.contracts.prepare_data import ExtensionSettings
from aot_core.contracts.scene import Box, SceneObject
from aot_core.worlds.similarity import localized_ssim
from aot_core.worlds.sources import Picture

P = TypeVar("P", bound=Picture)


@dataclass(frozen=True)
class Extended:
    """An extended picture, and where in it the source stands."""

    picture: Picture
    original: Box


@dataclass(frozen=True)
class Rejection:
    """Why something was not taken, in a word for the funnel."""

    reason: str
    detail: str = field(default="", compare=False)
    """What was measured or said."""


ExtensionCheck = Callable[[Picture, Extended, ExtensionSettings], str | None]
"""Says what is wrong with an extended picture, None where nothing is."""


def check_extension(
    checks: Mapping[str, ExtensionCheck],
    source: Picture,
    extended: Extended,
    settings: ExtensionSettings,
    timed: Callable[[str], AbstractContextManager[object]] = nullcontext,
) -> Rejection | None:
    """A world's checks by name, in their order, each inside `timed(its name)`; None where all are passed."""
    for reason, check in checks.items():
        with timed(reason):
            found = check(source, extended, settings)
        if found is not None:
            return Rejection(reason, found)
    return None


def composition(source: Picture, extended: Extended, settings: ExtensionSettings) -> str | None:
    """The original must stand intact: its pixels by SSIM, its objects where they were."""
    box = extended.original
    there = [thing.box for thing in extended.picture.scene.objects]
    if any(thing.box.shifted(box.x, box.y) not in there for thing in source.scene.objects):
        return "an object of the original is not where it was"
    inside = extended.picture.image.crop((int(box.x), int(box.y), int(box.right), int(box.bottom)))
    score = localized_ssim(source.image, inside, [Box(x=0, y=0, width=box.width, height=box.height)])
    return f"SSIM of the original {score:.4f}" if score < settings.min_ssim else None


def on_canvas(source: P, canvas: Image.Image, objects: tuple[SceneObject, ...]) -> P:
    """The source's scene on its canvas, with all objects in the canvas's pixels."""
    # Constructed, not copied, so that the boxes are validated against the new size.
    scene = source.scene.__class__(
        scene_id=source.scene.scene_id,
        source_id=source.scene.source_id,
        width=canvas.width,
        height=canvas.height,
        objects=objects,
        licence=source.scene.licence,
        source_hash=source.scene.source_hash,
    )
    return replace(source, scene=scene, image=canvas)
