"""The procedural source: coloured shapes on a shaded ground, every box and every truth exact.

A scene is a list of objects on a grid of cells, at most one a cell, and a backdrop; `render` turns both into
pixels, so that a perfect edit is a changed list drawn again. The clean scenes hold few objects; what is implanted
later makes them crowded, which is where a Defender trained on uncrowded scenes begins to fail.
"""

from functools import lru_cache
from itertools import product
from math import cos, pi, sin

import numpy as np
from PIL import Image, ImageDraw

from aot_core.contracts.base import Frozen
from aot_core.contracts.scene import Attributes, Box, SceneObject

SIZE = 64
"""Pixels a side."""
GRID = 4
"""Cells a side."""
CELL = SIZE // GRID
MIN_SIDE, MAX_SIDE = 10, 13
"""Pixels a side of an object; one pixel of ground at least stays on every side of its cell."""

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (214, 39, 40),
    "green": (34, 139, 54),
    "blue": (45, 83, 214),
    "yellow": (245, 214, 37),
    "purple": (142, 53, 176),
    "orange": (245, 124, 20),
}
UNSEEN_COLOURS: dict[str, tuple[int, int, int]] = {"black": (24, 24, 24), "pink": (250, 130, 185)}
SHAPES = ("circle", "square", "triangle", "ring", "cross", "diamond")
UNSEEN_SHAPES = ("star", "crescent")
"""Colours and shapes that no training stage ever draws: the held-out distractor family is made of them."""

_SUPERSAMPLING = 8

Cell = tuple[int, int]
"""(row, column), from 0 at the upper left."""


class Backdrop(Frozen):
    """A shaded ground. The shading differs along both axes, so that every place looks a little different."""

    level: int = 205
    """Grey value (0..255) in the middle."""
    slope: int = 24
    """How much red rises from left to right, and blue from top to bottom, in grey values over the image."""


def all_cells(size: int = SIZE) -> list[Cell]:
    """The cells of a square image of `size` pixels, row by row."""
    side = size // CELL
    return list(product(range(side), range(side)))


def cell_of(box: Box) -> Cell:
    """The cell that a box's centre lies in."""
    x, y = box.centre
    return int(y // CELL), int(x // CELL)


def cell_box(cell: Cell) -> Box:
    """The cell's square, in pixels."""
    row, column = cell
    return Box(x=column * CELL, y=row * CELL, width=CELL, height=CELL)


def place(rng: np.random.Generator, attributes: Attributes, cell: Cell) -> SceneObject:
    """An object of random size at a random place inside a cell."""
    side = int(rng.integers(MIN_SIDE, MAX_SIDE + 1))
    row, column = cell
    dx, dy = (int(rng.integers(1, CELL - side)) for _ in range(2))
    box = Box(x=column * CELL + dx, y=row * CELL + dy, width=side, height=side)
    return SceneObject(box=box, attributes=attributes)


def random_attributes(rng: np.random.Generator) -> Attributes:
    """A colour and a shape, uniform."""
    return {"colour": str(rng.choice(list(COLOURS))), "shape": str(rng.choice(SHAPES))}


def random_objects(rng: np.random.Generator, count: int, cells: list[Cell] | None = None) -> tuple[SceneObject, ...]:
    """`count` objects, no two alike in colour and shape, in different cells (of the whole grid unless given)."""
    cells = all_cells() if cells is None else cells
    if not 0 <= count <= min(len(cells), len(COLOURS) * len(SHAPES)):
        raise ValueError(f"count {count} does not fit {len(cells)} cells; give 0..{len(cells)}")
    names = list(product(COLOURS, SHAPES))
    chosen = rng.choice(len(names), size=count, replace=False)
    spots = rng.choice(len(cells), size=count, replace=False)
    return tuple(
        place(rng, {"colour": names[int(n)][0], "shape": names[int(n)][1]}, cells[int(s)])
        for n, s in zip(chosen, spots, strict=True)
    )


def random_backdrop(rng: np.random.Generator) -> Backdrop:
    """A ground of random brightness, always light enough that every colour stands out."""
    return Backdrop(level=int(rng.integers(190, 221)))


def render(objects: tuple[SceneObject, ...] | list[SceneObject], backdrop: Backdrop, size: int = SIZE) -> Image.Image:
    """Draw a scene: RGB, `size` x `size` pixels. Equal arguments give equal pixels."""
    canvas = _ground(backdrop.level, backdrop.slope, size).copy()
    for thing in objects:
        side = round(thing.box.width)
        alpha = stamp(thing.attributes["shape"], side)
        paint = Image.new("RGB", (side, side), rgb(thing.attributes["colour"]))
        canvas.paste(paint, (round(thing.box.x), round(thing.box.y)), alpha)
    return canvas


def rgb(colour: str) -> tuple[int, int, int]:
    """The paint of a colour word, of the seen or the unseen palette."""
    return COLOURS[colour] if colour in COLOURS else UNSEEN_COLOURS[colour]


@lru_cache(maxsize=256)
def _ground(level: int, slope: int, size: int) -> Image.Image:
    # The shading is a function of the pixel, not of the image's size: a larger canvas continues a smaller one.
    ramp = (np.arange(size) + 0.5) / SIZE - 0.5
    red = level + slope * ramp[None, :].repeat(size, 0)
    blue = level + slope * ramp[:, None].repeat(size, 1)
    green = np.full((size, size), float(level))
    return Image.fromarray(np.stack([red, green, blue], -1).round().clip(0, 255).astype(np.uint8))


@lru_cache(maxsize=256)
def stamp(shape: str, side: int) -> Image.Image:
    """The antialiased coverage of a shape: mode L, `side` x `side` pixels."""
    n = side * _SUPERSAMPLING
    mask = Image.new("L", (n, n), 0)
    draw = ImageDraw.Draw(mask)
    if shape == "circle":
        draw.ellipse((0, 0, n - 1, n - 1), fill=255)
    elif shape == "square":
        draw.rectangle((n * 0.06, n * 0.06, n * 0.94, n * 0.94), fill=255)
    elif shape == "triangle":
        draw.polygon([(n / 2, 0), (n - 1, n * 0.95), (0, n * 0.95)], fill=255)
    elif shape == "ring":
        draw.ellipse((0, 0, n - 1, n - 1), fill=255)
        draw.ellipse((n * 0.28, n * 0.28, n * 0.72, n * 0.72), fill=0)
    elif shape == "cross":
        draw.rectangle((n * 0.34, 0, n * 0.66, n - 1), fill=255)
        draw.rectangle((0, n * 0.34, n - 1, n * 0.66), fill=255)
    elif shape == "diamond":
        draw.polygon([(n / 2, 0), (n - 1, n / 2), (n / 2, n - 1), (0, n / 2)], fill=255)
    elif shape == "star":
        points = [
            (n / 2 + n / 2 * r * sin(i * pi / 5), n / 2 - n / 2 * r * cos(i * pi / 5))
            for i, r in enumerate([1.0, 0.42] * 5)
        ]
        draw.polygon(points, fill=255)
    elif shape == "crescent":
        draw.ellipse((0, 0, n - 1, n - 1), fill=255)
        draw.ellipse((n * 0.3, 0, n * 1.3, n - 1), fill=0)
    else:
        raise ValueError(f"shape {shape!r} is not one of {', '.join(SHAPES + UNSEEN_SHAPES)}")
    return mask.resize((side, side), Image.Resampling.BOX)
