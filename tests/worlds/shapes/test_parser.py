"""The parser reads scenes back, also badly painted ones, and takes no texture for an object."""

from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image, ImageFilter

from aot_core.worlds.shapes import world
from aot_core.worlds.shapes.parser import parse_world, parse_worlds

Found = set[tuple[world.Cell, str]]


def named(objects: list) -> Found:
    return {(world.cell_of(thing.box), thing.name) for thing in objects}


def recall_and_precision(change: Callable[[Image.Image], Image.Image], unseen: bool = False) -> tuple[float, float]:
    """Over 60 scenes of 0..7 objects, each drawn and then changed."""
    rng = np.random.default_rng(5)
    wanted = found = both = 0
    for _ in range(60):
        objects = list(world.random_objects(rng, int(rng.integers(8))))
        if unseen:
            palette = [*world.COLOURS, *world.UNSEEN_COLOURS], [*world.SHAPES, *world.UNSEEN_SHAPES]
            objects = [
                thing.model_copy(
                    update={"attributes": {"colour": str(rng.choice(palette[0])), "shape": str(rng.choice(palette[1]))}}
                )
                for thing in objects
            ]
        image = change(world.render(objects, world.random_backdrop(rng)))
        there, read = named(objects), named([parsed.object for parsed in parse_world(image)])
        wanted, found, both = wanted + len(there), found + len(read), both + len(there & read)
    return both / wanted, both / found


def noisy(image: Image.Image) -> Image.Image:
    grain = np.random.default_rng(1).normal(0, 8, (64, 64, 3))
    return Image.fromarray((np.asarray(image) + grain).clip(0, 255).astype(np.uint8))


def blurred(radius: float) -> Callable[[Image.Image], Image.Image]:
    return lambda image: image.filter(ImageFilter.GaussianBlur(radius))


def faint(image: Image.Image) -> Image.Image:
    return Image.blend(world.render([], world.Backdrop()), image, 0.6)


@pytest.mark.parametrize(
    ("change", "least"),
    [(lambda image: image, 1.0), (blurred(0.7), 1.0), (noisy, 1.0), (faint, 0.95), (blurred(1.5), 0.9)],
)
def test_scenes_are_read_back(change: Callable[[Image.Image], Image.Image], least: float) -> None:
    assert min(recall_and_precision(change)) >= least


def test_the_unseen_palette_is_read_too() -> None:
    assert min(recall_and_precision(lambda image: image, unseen=True)) == 1.0


def test_boxes_are_exact_and_confidence_tells_crisp_from_soft() -> None:
    rng = np.random.default_rng(0)
    (thing,) = world.random_objects(rng, 1)
    crisp = world.render([thing], world.Backdrop())
    (exact,), (soft,) = parse_worlds([crisp, crisp.filter(ImageFilter.GaussianBlur(2))])
    assert exact.object == thing
    assert exact.confidence > 0.999 and exact.strength == pytest.approx(1, abs=0.01)
    assert 0.7 < soft.confidence < 0.98


def test_an_empty_scene_holds_nothing() -> None:
    assert parse_world(world.render([], world.Backdrop(level=190))) == []


@pytest.mark.parametrize("pattern", ["stripes", "checks", "diagonal"])
def test_a_texture_is_no_object(pattern: str) -> None:
    y, x = np.mgrid[:16, :16]
    mask = {"stripes": x // 2 % 2, "checks": (x // 2 + y // 2) % 2, "diagonal": (x + y) // 3 % 2}[pattern]
    pixels = np.asarray(world.render([], world.Backdrop())).copy()
    pixels[16:32, 16:32][mask == 1] = world.rgb("red")
    assert parse_world(Image.fromarray(pixels)) == []


def test_the_size_must_fit_the_grid() -> None:
    with pytest.raises(ValueError, match="multiples of 16"):
        parse_world(Image.new("RGB", (60, 64)))
