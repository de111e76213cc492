"""Scene extension: a source picture on a larger canvas, which then has room for distractors.

    source picture ----extend----> extended picture ----three checks----> accepted, or rejected for a reason

Procedural views are painted on by the procedural painter: ground, and now and then a further object. Photographs
are outpainted by their own mirrored border, ever more blurred with distance, so that it goes on in colour and
texture and shows nothing, or by a diffusion model (`worlds.photographs.outpainting`). The checks are the paper's
(composition, duplication, realism), by geometry and pixels; an MLLM may judge after them (`aot_core.worlds.checker`).
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from math import ceil

import numpy as np
from numpy.fft import irfft2, rfft2
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from aot_core.contracts.prepare_data import ExtensionSettings
from aot_core.contracts.scene import Box, SceneObject
from aot_core.worlds.photographs.outpainting import Outpainter, new_part
from aot_core.worlds.photographs.places import with_place
from aot_core.worlds.shapes import world
from aot_core.worlds.similarity import localized_ssim
from aot_core.worlds.sources import Picture, move


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


def extend_world(rng: np.random.Generator, source: Picture, settings: ExtensionSettings) -> Extended:
    """The whole world of 4 x 4 cells around a procedural view of it, with new objects in the new cells."""
    assert source.backdrop is not None
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
    return Extended(_on_canvas(source, canvas, objects), original)


def extend_photo(
    rng: np.random.Generator, source: Picture, settings: ExtensionSettings, outpainter: Outpainter | None = None
) -> Extended:
    """A photograph at a random place on a larger canvas, its surroundings outpainted.

    By the outpainter, which starts from the mirrored border; without one, that is all there is.
    """
    scale = float(rng.uniform(*settings.scale))
    width, height = source.image.size
    size = round(width * scale), round(height * scale)
    left, top = int(rng.integers(size[0] - width + 1)), int(rng.integers(size[1] - height + 1))
    original = Box(x=left, y=top, width=width, height=height)
    canvas = _outpaint(rng, source.image, (left, top), size)
    if outpainter is not None:
        canvas = outpainter.outpaint(canvas, new_part(size, (left, top), (width, height)), int(rng.integers(2**31)))
    objects = tuple(with_place(move(thing, left, top), size) for thing in source.scene.objects)
    doubtful = tuple(with_place(move(thing, left, top), size) for thing in source.doubtful)
    return Extended(replace(_on_canvas(source, canvas, objects), doubtful=doubtful), original)


def check_extension(
    source: Picture,
    extended: Extended,
    settings: ExtensionSettings,
    timed: Callable[[str], AbstractContextManager[object]] = nullcontext,
) -> Rejection | None:
    """The three checks, in the paper's order, each inside `timed(its name)`; None where all are passed."""
    for reason, check in CHECKS.items():
        with timed(reason):
            found = check(source, extended, settings)
        if found is not None:
            return Rejection(reason, found)
    return None


def _composition(source: Picture, extended: Extended, settings: ExtensionSettings) -> str | None:
    """The original must stand intact: its pixels by SSIM, its objects where they were."""
    box = extended.original
    there = [thing.box for thing in extended.picture.scene.objects]
    if any(thing.box.shifted(box.x, box.y) not in there for thing in source.scene.objects):
        return "an object of the original is not where it was"
    inside = extended.picture.image.crop((int(box.x), int(box.y), int(box.right), int(box.bottom)))
    score = localized_ssim(source.image, inside, [Box(x=0, y=0, width=box.width, height=box.height)])
    return f"SSIM of the original {score:.4f}" if score < settings.min_ssim else None


def _duplication(source: Picture, extended: Extended, settings: ExtensionSettings) -> str | None:
    """No second copy of an object: procedural by name, photographs by looks."""
    if source.backdrop is not None:
        return "a new object repeats an old one" if _repeats_name(source, extended) else None
    likeness = copies_in_new_part(extended)
    return f"likeness {likeness:.3f}" if likeness > settings.max_copy else None


def _realism(source: Picture, extended: Extended, settings: ExtensionSettings) -> str | None:
    """Procedural: new objects lie where a painter would put them; photographs: no hard seam."""
    if source.backdrop is not None:
        return None if _lies_well(source, extended) else "a new object lies where none can"
    step = seam_step(extended)
    return f"seam {step:.2f}" if step > settings.max_seam else None


CHECKS: dict[str, Callable[[Picture, Extended, ExtensionSettings], str | None]] = {
    "composition": _composition,
    "duplication": _duplication,
    "realism": _realism,
}
"""The paper's three checks by name, in its order: each says what is wrong, None where nothing is."""


def _repeats_name(source: Picture, extended: Extended) -> bool:
    """Procedural: whether a new object is a second copy of an old one."""
    old = {thing.name for thing in source.scene.objects}
    return any(thing.name in old for thing in extended.picture.scene.objects[len(source.scene.objects) :])


def _lies_well(source: Picture, extended: Extended) -> bool:
    """Procedural: new objects are of a common size, stand apart from each other and outside the original."""
    new = extended.picture.scene.objects[len(source.scene.objects) :]
    boxes = [extended.original, *(thing.box for thing in new)]
    apart = all(a.overlap(b) == 0 for i, a in enumerate(boxes) for b in boxes[i + 1 :])
    return apart and all(world.MIN_SIDE <= thing.box.width <= world.MAX_SIDE for thing in new)


_THUMBNAIL = 128
"""Pixels of the longer side at which copies are looked for."""
_LEAST_SIDE = 5
"""Pixels (of the thumbnail) below which an object is too small to be recognised, let alone its copy."""


def copies_in_new_part(extended: Extended) -> float:
    """How like an object of the original, as it is or mirrored, any place in the new part is at most: -1..1, 1 for a
    true copy."""
    canvas = extended.picture.image
    factor = _THUMBNAIL / max(canvas.size)
    small = canvas.convert("L").resize((round(canvas.width * factor), round(canvas.height * factor)))
    grey = np.asarray(small, dtype=np.float64) / 255
    o = extended.original
    old = np.zeros_like(grey)
    old[int(o.y * factor) : ceil(o.bottom * factor), int(o.x * factor) : ceil(o.right * factor)] = 1
    spectra = [rfft2(image) for image in (grey, grey**2, old)]
    margins = max(o.x, canvas.width - o.right) * factor, max(o.y, canvas.height - o.bottom) * factor
    highest = -1.0
    for box in (thing.box for thing in extended.picture.scene.objects if thing.box.overlap(o) > 0):
        rows = slice(int(box.y * factor), int(box.bottom * factor))
        columns = slice(int(box.x * factor), int(box.right * factor))
        template = grey[rows, columns]
        fits = template.shape[1] <= margins[0] or template.shape[0] <= margins[1]
        if fits and min(template.shape) >= _LEAST_SIDE:
            highest = max(highest, _likeness(spectra, template, grey.shape))
    return highest


def _likeness(spectra: Sequence[NDArray[np.complex128]], template: NDArray[np.float64], size: tuple[int, ...]) -> float:
    """Cross-correlation of an (h, w) template and its mirror images with an (H, W) image, at its highest where the
    window holds no old pixel. The spectra are those of the image, its square, and what in it is old.

    Over the larger of the two squared norms, not their product: a faint ghost of an object is no second one.
    """
    centred = template - template.mean()
    norm = float(np.linalg.norm(centred))
    if norm < 1e-3:
        return -1.0
    # Where the window lies inside the image; elsewhere the transform's correlation wraps around.
    valid = slice(size[0] - template.shape[0] + 1), slice(size[1] - template.shape[1] + 1)

    def correlate(spectrum: NDArray[np.complex128], window: NDArray[np.float64]) -> NDArray[np.float64]:
        return irfft2(spectrum * rfft2(window, size).conj(), size)[valid]

    total, squares, covered = (correlate(spectrum, np.ones_like(template)) for spectrum in spectra)
    deviation = np.sqrt((squares - total**2 / template.size).clip(min=0))
    new = covered < 0.5
    if not new.any():
        return -1.0
    flips = (centred, centred[::-1], centred[:, ::-1], centred[::-1, ::-1])
    # The templates have mean 0, so the window's mean drops out of the product.
    product = np.max([correlate(spectra[0], flip) for flip in flips], axis=0)
    return float((product / np.maximum(norm, deviation) ** 2)[new].max())


def seam_step(extended: Extended) -> float:
    """The mean step across the original's border over the mean step between neighbours inside it; 1 is seamless."""
    pixels = np.asarray(extended.picture.image.convert("L"), dtype=np.float32)
    o = extended.original
    x0, y0, x1, y1 = int(o.x), int(o.y), int(o.right), int(o.bottom)
    steps = [
        np.abs(pixels[y0:y1, edge] - pixels[y0:y1, edge - 1]) for edge in (x0, x1) if 0 < edge < pixels.shape[1]
    ] + [np.abs(pixels[edge, x0:x1] - pixels[edge - 1, x0:x1]) for edge in (y0, y1) if 0 < edge < pixels.shape[0]]
    if not steps:
        return 1.0
    inside = pixels[y0:y1, x0:x1]
    usual = (np.abs(np.diff(inside, axis=0)).mean() + np.abs(np.diff(inside, axis=1)).mean()) / 2
    return float(np.concatenate(steps).mean() / max(usual, 1.0))


_BLURS = (2, 8, 32)
"""Blur radii, pixels, that the outpainting goes through with distance."""


def _outpaint(
    rng: np.random.Generator, photo: Image.Image, corner: tuple[int, int], size: tuple[int, int]
) -> Image.Image:
    """The photograph at `corner` of a canvas of `size`; around it its mirrored border, blurring with distance."""
    left, top = corner
    right, bottom = size[0] - left - photo.width, size[1] - top - photo.height
    sharp = Image.fromarray(np.pad(np.asarray(photo), ((top, bottom), (left, right), (0, 0)), mode="symmetric"))
    canvas = sharp
    distance = _distance(size, corner, photo.size)
    for radius in _BLURS:
        # A wide blur looks the same made at a fraction of the size, and takes a fraction of the time.
        reduced = sharp.reduce(max(1, radius // 4))
        blurred = reduced.filter(ImageFilter.GaussianBlur(min(radius, 4))).resize(size, Image.Resampling.BICUBIC)
        # Fully this blurred once as far away as twice its radius.
        weight = (distance * (255 / (2 * radius))).clip(0, 255).astype(np.uint8)
        canvas = Image.composite(blurred, canvas, Image.fromarray(weight))
    # A little grain: perfectly smooth ground beside a photograph gives itself away.
    grain = rng.integers(-4, 5, size=(size[1], size[0], 1), dtype=np.int16)
    extended = Image.fromarray((np.asarray(canvas) + grain).clip(0, 255).astype(np.uint8))
    extended.paste(photo, corner)
    return extended


def _distance(size: tuple[int, int], corner: tuple[int, int], inner: tuple[int, int]) -> NDArray[np.float32]:
    """How far each pixel of a (width, height) canvas is from the inner rectangle, in pixels, (H, W)."""
    along = []
    for side, start, length in zip(size, corner, inner, strict=True):
        at = np.arange(side, dtype=np.float32)
        along.append(np.maximum(np.maximum(start - at, at - (start + length - 1)), 0))
    return np.hypot(along[1][:, None], along[0][None, :])


def _on_canvas(source: Picture, canvas: Image.Image, objects: tuple[SceneObject, ...]) -> Picture:
    # Built anew, not copied, so that the boxes are validated against the new size.
    scene = source.scene.__class__(
        scene_id=source.scene.scene_id,
        source_id=source.scene.source_id,
        width=canvas.width,
        height=canvas.height,
        objects=objects,
        licence=source.scene.licence,
        source_hash=source.scene.source_hash,
    )
    return replace(source, scene=scene, image=canvas, window=(0, 0))
