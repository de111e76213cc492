"""Places in a photograph in words: "upper left", "centre", "lower middle"."""

from aot_core.contracts.scene import Box, SceneObject

PLACES = (
    *("upper left", "upper middle", "upper right"),
    *("middle left", "centre", "middle right"),
    *("lower left", "lower middle", "lower right"),
)
"""Thirds of the picture, row by row."""
_MARGIN = 0.04
"""A centre nearer than this to a boundary between thirds (share of the picture's side) belongs to no place."""
_LARGEST = 0.45
"""A thing wider or higher than this share of the picture is at no one place."""


def place_of(box: Box, size: tuple[int, int]) -> str | None:
    """The place of a box in a picture of `size` (width, height) pixels; None where it is ambiguous."""
    if box.width > _LARGEST * size[0] or box.height > _LARGEST * size[1]:
        return None
    shares = [along / side for along, side in zip(box.centre, size, strict=True)]
    if any(abs(share - boundary) < _MARGIN for share in shares for boundary in (1 / 3, 2 / 3)):
        return None
    column, row = (int(share * 3) for share in shares)
    return PLACES[row * 3 + column]


def with_place(thing: SceneObject, size: tuple[int, int]) -> SceneObject:
    """The object with its place in a picture of `size` as an attribute, without one where that is disputable."""
    attributes = {key: value for key, value in thing.attributes.items() if key != "place"}
    place = place_of(thing.box, size)
    return thing.model_copy(update={"attributes": {**attributes, "place": place} if place else attributes})
