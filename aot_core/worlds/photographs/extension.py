"""Scene extension of photographs: outpainting.

By their own mirrored border, ever more blurred with distance, so that it goes on in colour and texture and shows
nothing, or by a diffusion model (`worlds.photographs.outpainting`).
"""

from collections.abc import Sequence
from dataclasses import replace
from math import ceil

import numpy as np
from numpy.fft import irfft2, rfft2
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from aot_core.contracts.prepare_data import ExtensionSettings
from aot_core.contracts.scene import Box
from aot_core.worlds.extension import Extended, ExtensionCheck, composition, on_canvas
from aot_core.worlds.photographs.outpainting import new_part
from aot_core.worlds.photographs.places import with_place
from aot_core.worlds.protocol import Outpainter
from aot_core.worlds.sources import Picture, move


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
    return Extended(replace(on_canvas(source, canvas, objects), doubtful=doubtful), original)


def _duplication(_source: Picture, extended: Extended, settings: ExtensionSettings) -> str | None:
    """No second copy of an object, by looks."""
    likeness = copies_in_new_part(extended)
    return f"likeness {likeness:.3f}" if likeness > settings.max_copy else None


def _realism(_source: Picture, extended: Extended, settings: ExtensionSettings) -> str | None:
    """No hard seam."""
    step = seam_step(extended)
    return f"seam {step:.2f}" if step > settings.max_seam else None


CHECKS: dict[str, ExtensionCheck] = {"composition": composition, "duplication": _duplication, "realism": _realism}
"""The paper's three checks by name, in its order."""


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
