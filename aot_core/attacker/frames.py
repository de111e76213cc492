"""The square frame that a big editor works in: images of any size in, edits of the same sizes out."""

import numpy as np
from PIL import Image, ImageOps
from torch import Tensor

GREY = (127, 127, 127)


def fit(image: Image.Image, side: int) -> Image.Image:
    """The image scaled into a square of `side` pixels, centred, grey bars beside it. One that is such a square already
    stays as it is, bit by bit."""
    return ImageOps.pad(image.convert("RGB"), (side, side), Image.Resampling.LANCZOS, color=GREY)


def restore(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    """What `fit` put into the square `picture`, at its own `size` (width, height) again."""
    side = picture.width
    longest = max(size)
    width, height = (round(length / longest * side) for length in size)
    left, top = round((side - width) * 0.5), round((side - height) * 0.5)
    inner = picture.crop((left, top, left + width, top + height))
    return inner if inner.size == size else inner.resize(size, Image.Resampling.LANCZOS)


def keep_source(source: Image.Image, edited: Image.Image, share_hw: Tensor, side: int) -> Image.Image:
    """The source where its latents were left alone, the edited image where they were not.

    Args:
        edited: of the source's size.
        share_hw: (h, w) in 0..1, by token of the frame of `side` pixels: how much of the edit stands there.
    """
    levels = Image.fromarray((share_hw.float().cpu().numpy() * 255).round().astype(np.uint8))
    mask = restore(levels.resize((side, side), Image.Resampling.BILINEAR), source.size)
    return Image.composite(edited, source.convert("RGB"), mask)
