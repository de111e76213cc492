"""What of a photograph can be taken away without a trace: small things, on ground plain enough to be painted over.

A thing is spare where the question is not about it, no protected box is within reach of the SSIM window, and nothing
else would be half hidden. Painting out solves Laplace's equation inside the box, its surroundings the boundary: the
smoothest ground that meets them, with the grain that smoothness lacks.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from aot_core.contracts.scene import Box, EditKind, Question, SceneObject
from aot_core.worlds.sources import Picture

WHOLE, PART = 0.9, 0.05
"""Shares of a thing's box: from WHOLE on it counts as inside another box, from PART on it is doubtful."""
REACH = 6
"""Pixels that an edit keeps from a protected box, one more than SSIM's window reaches."""
LARGEST = 0.1
"""The share of the picture that a spare thing covers at most."""
MOST_CARRIED = 0.25
"""The share of what carries a spare thing that the thing covers at most."""
PLAIN = 6.0
"""The mean step between neighbouring pixels around a box (grey values) up to which its ground is plain."""


def spare_things(picture: Picture, question: Question, used: Sequence[Box], kind: EditKind) -> list[SceneObject]:
    """The things that an edit of a kind could take: for "remove" on plain ground alone."""
    size = picture.image.size
    asked = [question.query.target, *([question.query.reference] if question.query.reference else [])]
    found = []
    for thing in picture.scene.objects:
        region = grown(thing.box, size)
        inside = region.x >= 1 and region.y >= 1 and region.right <= size[0] - 1 and region.bottom <= size[1] - 1
        if not inside or region.area > LARGEST * size[0] * size[1] or "place" not in thing.attributes:
            continue
        if any(thing.matches(one) for one in asked):
            continue
        if any(widened(region).overlap(box) for box in (*question.protected, *used)):
            continue
        # What is doubtful stays so. What carries the thing (a coat its badge) may lose a little of what is seen of it.
        others = [other for other in picture.scene.objects if other is not thing]
        if any(_half_hidden(other, region) for other in others):
            continue
        if kind == "remove" and roughness(picture.image, region) > PLAIN:
            continue
        found.append(thing)
    return found


def grown(box: Box, size: tuple[int, int]) -> Box:
    """The box in whole pixels with a margin, so that a feathered edge lies outside the thing; inside the picture."""
    margin = 2 + round(0.06 * min(box.width, box.height))
    left, top = max(0, int(box.x) - margin), max(0, int(box.y) - margin)
    right, bottom = min(size[0], int(np.ceil(box.right)) + margin), min(size[1], int(np.ceil(box.bottom)) + margin)
    return Box(x=left, y=top, width=right - left, height=bottom - top)


def widened(box: Box) -> Box:
    """The box and all from where SSIM's window reaches into it."""
    left, top = max(0, box.x - REACH), max(0, box.y - REACH)
    return Box(x=left, y=top, width=box.right + REACH - left, height=box.bottom + REACH - top)


def hidden_share(thing: SceneObject, region: Box) -> float:
    """The share of a thing's box that a region covers."""
    return region.overlap(thing.box) / thing.box.area


def _half_hidden(thing: SceneObject, region: Box) -> bool:
    """Whether a region hides so much of a thing that it might, or might not, be seen still."""
    carries = region.overlap(thing.box) >= WHOLE * region.area
    return (MOST_CARRIED if carries else PART) <= hidden_share(thing, region) < WHOLE


def roughness(image: Image.Image, region: Box) -> float:
    """The mean step between neighbouring pixels along the region's outline, grey values."""
    grey = np.asarray(image.convert("L"), dtype=np.float32)
    rows, columns = _slices(region)
    outline = [
        grey[rows.start - 1, columns], grey[rows.stop, columns], grey[rows, columns.start - 1], grey[rows, columns.stop]
    ]  # fmt: skip
    return float(np.concatenate([np.abs(np.diff(side)) for side in outline]).mean())


def paint_out(rng: np.random.Generator, image: Image.Image, region: Box) -> Image.Image:
    """The image with a region (whole pixels, one at least from the image's border) painted over by its surroundings."""
    pixels = np.asarray(image, dtype=np.float64).copy()
    rows, columns = _slices(region)
    filled = harmonic(pixels[rows.start - 1 : rows.stop + 1, columns.start - 1 : columns.stop + 1])
    grain = rng.integers(-2, 3, size=(*filled.shape[:2], 1))
    pixels[rows, columns] = filled + grain
    return Image.fromarray(pixels.round().clip(0, 255).astype(np.uint8))


def harmonic(framed: NDArray[np.float64]) -> NDArray[np.float64]:
    """The solution of Laplace's equation inside a frame: (h + 2, w + 2, C), of which the frame counts, gives (h, w, C).

    By the discrete sine transform, in which the five-point Laplacian is diagonal.
    """
    # Late: drawn scenes have no use for it, and their workers start a tenth sooner without.
    from scipy.fft import dstn, idstn

    h, w = framed.shape[0] - 2, framed.shape[1] - 2
    known = np.zeros((h, w, framed.shape[2]))
    known[0] += framed[0, 1:-1]
    known[-1] += framed[-1, 1:-1]
    known[:, 0] += framed[1:-1, 0]
    known[:, -1] += framed[1:-1, -1]
    along = [2 * np.cos(np.pi * np.arange(1, n + 1) / (n + 1)) - 2 for n in (h, w)]
    eigenvalues = along[0][:, None, None] + along[1][None, :, None]
    return np.asarray(idstn(dstn(-known, type=1, axes=(0, 1)) / eigenvalues, type=1, axes=(0, 1)))


def _slices(region: Box) -> tuple[slice, slice]:
    return slice(int(region.y), int(region.bottom)), slice(int(region.x), int(region.right))
