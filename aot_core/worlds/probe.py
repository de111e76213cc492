"""A user's own picture and question, made into a sample that can be attacked.

A picture of the drawn world (64 x 64 pixels, and a question in that world's words) is read by the parser: its
objects are known, and so is the truth of any edit of it. Every other picture is a photograph: what the question is
about stands in the boxes that are given, and no edit may touch them.
"""

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from aot_core.contracts.scene import LETTERS, Box, Question, Sample, Scene
from aot_core.worlds.images import open_image
from aot_core.worlds.opening import read
from aot_core.worlds.protocol import ProbeError


def sample_of(
    path: Path, question: str, options: Sequence[str], answer: str, boxes: Sequence[str]
) -> tuple[Sample, Image.Image]:
    """The sample and its picture.

    Args:
        answer: the right option, in its words or by its letter.
        boxes: "X,Y,WIDTH,HEIGHT" in pixels, of what the question is about; in the procedural world they are read from
            the picture unless given.

    Raises ProbeError, or DataError for a file that is no usable picture.
    """
    if not path.is_file():
        raise ProbeError(f"image {str(path)!r} does not exist; give the path of a picture (PNG, JPEG or WebP)")
    image = open_image(path.parent, path.name)
    letter = _letter(options, answer)
    protected = tuple(read_box(text, image.size) for text in boxes)
    query, objects, protected = read(image, question, options[LETTERS.index(letter)], protected)
    sample = Sample(
        sample_id=path.stem,
        split="evaluate",
        scene=Scene(scene_id=path.stem, source_id=path.stem, width=image.width, height=image.height, objects=objects),
        question=Question(query=query, text=question, options=tuple(options), answer=letter, protected=protected),
        image=path.name,
    )
    return sample, image


def read_box(text: str, size: tuple[int, int]) -> Box:
    """ "X,Y,WIDTH,HEIGHT" in pixels, inside a picture of `size` (width, height). Raises ProbeError."""
    try:
        x, y, width, height = (float(part) for part in text.split(","))
    except ValueError:
        raise ProbeError(
            f"boxes: {text!r} is not a box; write X,Y,WIDTH,HEIGHT in pixels, such as 12,30,40,25"
        ) from None
    # Not (a and b): a NaN is refused too.
    if not (x >= 0 and y >= 0 and width > 0 and height > 0 and x + width <= size[0] and y + height <= size[1]):
        raise ProbeError(
            f"boxes: {text} does not lie inside the picture of {size[0]}x{size[1]} pixels; x + width may be "
            f"{size[0]} at most, y + height {size[1]}"
        )
    return Box(x=x, y=y, width=width, height=height)


def _letter(options: Sequence[str], answer: str) -> str:
    if not 2 <= len(options) <= len(LETTERS):
        raise ProbeError(f"option: {len(options)} given; give --option two to {len(LETTERS)} times")
    if len(set(options)) != len(options):
        raise ProbeError(f"option: {', '.join(options)} repeat; every option must differ")
    if answer in options:
        return LETTERS[options.index(answer)]
    if len(answer) == 1 and answer in LETTERS[: len(options)]:
        return answer
    raise ProbeError(f"answer: {answer!r} is not among the options {', '.join(options)}; give one, or its letter")
