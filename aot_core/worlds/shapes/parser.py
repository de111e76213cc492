"""Reading a procedural scene back from its pixels: which object stands in which cell.

Written for edited images, whose truth is not recorded: "does the edit contain an object, and which?". Each
cell is matched against a drawing of every shape at every size and offset in every colour, crisp and blurred, by
least squares: with D the cell's difference from the ground and P a template's, the best strength is
a = <D, P> / <P, P> and what the template explains is <D, P>^2 / (<D, D> <P, P>), a share of 0..1. A free strength
makes faint and soft painted objects readable.
"""

from collections.abc import Sequence
from functools import lru_cache
from itertools import product
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from aot_core.contracts.base import Frozen
from aot_core.contracts.scene import Attributes, Box, SceneObject
from aot_core.worlds.shapes import world

MIN_CONFIDENCE = 0.7
"""Below this share of the cell explained a mark is not called an object: blobs have 0.9, stripes and plain fills up
to 0.65."""
MIN_ENERGY = 9.0
"""Root mean square difference from the ground (grey values) from which a cell counts as not empty; the faintest
crisp object, a small pink star, has 18, the faintest of the seen palette 23."""
MIN_STRENGTH, MAX_STRENGTH = 0.35, 1.3
"""How strongly an object may be painted, 1 being its colour's full paint."""
AMBIGUOUS = 0.03
"""Two readings whose confidences are nearer than this count as one; those of crisp drawings differ by 0.05 at least."""
_BLURS = (0.0, 1.0)
"""Radii of the Gaussian blur of the templates, pixels."""


class ParsedObject(Frozen):
    """An object as read from pixels."""

    object: SceneObject
    confidence: float
    """The share of the cell's difference from the ground that the object explains, 0..1; 1 for crisp drawings."""
    strength: float
    """How strongly it is painted: 1 for the colour's full paint."""
    mistakable: tuple[Attributes, ...] = ()
    """Other colours and shapes that explain what is seen nearly as well: people would take it for one or the other."""


class _Templates(NamedTuple):
    """T coverages of a cell's pixels (T, CELL^2), and the shape and box in the cell that each stands for."""

    coverage: NDArray[np.float32]
    shapes: list[str]
    boxes: list[tuple[int, int, int]]
    """(dx, dy, side) in pixels."""


def parse_world(
    image: Image.Image, *, unseen: bool = True, min_confidence: float = MIN_CONFIDENCE
) -> list[ParsedObject]:
    """The objects of a procedural scene (or of an edit of one), row by row.

    `unseen` also looks for the held-out colours and shapes. Raises ValueError when the image's sides are not
    multiples of the cell.
    """
    return parse_worlds([image], unseen=unseen, min_confidence=min_confidence)[0]


def parse_worlds(
    images: Sequence[Image.Image], *, unseen: bool = True, min_confidence: float = MIN_CONFIDENCE
) -> list[list[ParsedObject]]:
    """`parse_world` of many images."""
    return [_parse(image, unseen, min_confidence) for image in images]


def _parse(image: Image.Image, unseen: bool, min_confidence: float) -> list[ParsedObject]:
    width, height = image.size
    if width % world.CELL or height % world.CELL:
        raise ValueError(f"image is {width}x{height}: its sides must be multiples of {world.CELL} pixels")
    pixels = np.asarray(image.convert("RGB"), dtype=np.float32)
    ground = estimate_ground(pixels)
    rows, columns = height // world.CELL, width // world.CELL
    differences, grounds = _cells(pixels - ground, rows, columns), _cells(ground, rows, columns)
    energies = np.sqrt((differences**2).mean((1, 2)))
    busy = np.flatnonzero(energies >= MIN_ENERGY)
    if busy.size == 0:
        return []
    found = _match(differences[busy], grounds[busy], unseen)
    return [
        ParsedObject(
            object=_object(name, box, (int(cell) // columns, int(cell) % columns)),
            confidence=confidence,
            strength=strength,
            mistakable=mistakable,
        )
        for cell, (name, box, confidence, strength, mistakable) in zip(busy, found, strict=True)
        if confidence >= min_confidence
    ]


def estimate_ground(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    """The shaded ground under a scene, (H, W, 3): each channel's known ramp raised to the median of what is seen.

    The objects may cover up to half of the image.
    """
    height, width, _ = pixels.shape
    slope = world.Backdrop().slope / world.SIZE
    ramp = np.zeros_like(pixels)
    ramp[:, :, 0] = slope * np.arange(width, dtype=np.float32)[None, :]
    ramp[:, :, 2] = slope * np.arange(height, dtype=np.float32)[:, None]
    return ramp + np.median(pixels - ramp, axis=(0, 1)).astype(np.float32)


def _match(
    differences: NDArray[np.float32], grounds: NDArray[np.float32], unseen: bool
) -> list[tuple[tuple[str, str], tuple[int, int, int], float, float, tuple[Attributes, ...]]]:
    """The best template of each cell: (colour, shape), its box in the cell, confidence, strength, and other (colour,
    shape) nearly as good.

    `differences` and `grounds` are (N, CELL^2, 3).
    """
    templates = _templates(unseen)
    colours = list(world.COLOURS) + (list(world.UNSEEN_COLOURS) if unseen else [])
    paint = np.array([world.rgb(colour) for colour in colours], dtype=np.float32)
    # (N, K, pixels): what full paint of colour k would change at each pixel, against what did change.
    toward = paint[None, :, None, :] - grounds[:, None, :, :]
    along = np.einsum("nkpc,npc->nkp", toward, differences)
    full = (toward**2).sum(-1)
    n, k, p = along.shape
    inner = (along.reshape(n * k, p) @ templates.coverage.T).reshape(n, k, -1)
    norm = (full.reshape(n * k, p) @ (templates.coverage**2).T).reshape(n, k, -1)
    strength = np.clip(inner / norm, MIN_STRENGTH, MAX_STRENGTH)
    energy = (differences**2).sum((1, 2))
    left = energy[:, None, None] - 2 * strength * inner + strength**2 * norm
    best = left.reshape(n, -1).argmin(1)
    found = []
    for cell, index in enumerate(best):
        colour, template = divmod(int(index), len(templates.shapes))
        confidence = float(1 - left[cell, colour, template] / energy[cell])
        name = (colours[colour], templates.shapes[template])
        near = np.argwhere(1 - left[cell] / energy[cell] > confidence - AMBIGUOUS)
        others = {(colours[int(k)], templates.shapes[int(t)]) for k, t in near} - {name}
        found.append(
            (
                name,
                templates.boxes[template],
                min(max(confidence, 0.0), 1.0),
                float(strength[cell, colour, template]),
                tuple({"colour": colour_, "shape": shape} for colour_, shape in sorted(others)),
            )
        )
    return found


def _cells(pixels: NDArray[np.float32], rows: int, columns: int) -> NDArray[np.float32]:
    """(H, W, 3) to (rows * columns, CELL^2, 3), row by row."""
    cut = pixels.reshape(rows, world.CELL, columns, world.CELL, 3).transpose(0, 2, 1, 3, 4)
    return cut.reshape(rows * columns, world.CELL**2, 3)


@lru_cache(maxsize=2)
def _templates(unseen: bool) -> _Templates:
    coverages, names, boxes = [], [], []
    shapes = world.SHAPES + (world.UNSEEN_SHAPES if unseen else ())
    for blur, shape, side in product(_BLURS, shapes, range(world.MIN_SIDE, world.MAX_SIDE + 1)):
        offsets = range(1, world.CELL - side)
        for dx, dy in product(offsets, offsets):
            cell = Image.new("L", (world.CELL, world.CELL), 0)
            cell.paste(world.stamp(shape, side), (dx, dy))
            if blur:
                cell = cell.filter(ImageFilter.GaussianBlur(blur))
            coverages.append(np.asarray(cell, dtype=np.float32).ravel() / 255)
            names.append(shape)
            boxes.append((dx, dy, side))
    return _Templates(np.stack(coverages), names, boxes)


def _object(name: tuple[str, str], box: tuple[int, int, int], cell: world.Cell) -> SceneObject:
    dx, dy, side = box
    corner = world.cell_box(cell)
    return SceneObject(
        box=Box(x=corner.x + dx, y=corner.y + dy, width=side, height=side),
        attributes={"colour": name[0], "shape": name[1]},
    )
