"""Pictures embedded in a page, as small as possible: lossless WebP, with one size budget for all."""

import base64
import io
from pathlib import Path

from PIL import Image

from aot_core.worlds.images import DataError, open_image

_EFFORT = 2
"""Of WebP's 0 to 6; more takes several times as long and saves a twentieth."""


def webp(image: Image.Image, *, lossless: bool = True) -> bytes:
    """The picture as WebP. Drawn pages and pixel art are smaller without loss than with it."""
    buffer = io.BytesIO()
    image.save(buffer, format="WEBP", lossless=lossless, quality=60 if lossless else 80, method=_EFFORT)
    return buffer.getvalue()


def data_uri(picture: bytes) -> str:
    """A WebP picture as an address that a page can hold."""
    return "data:image/webp;base64," + base64.b64encode(picture).decode()


def shrunk_uri(path: Path) -> str:
    """A PNG file as such an address; "" where the file is gone."""
    if not path.is_file():
        return ""
    try:
        return data_uri(webp(open_image(path.parent, path.name)))
    except DataError:
        return ""


def chart_uri(png: bytes) -> str:
    """A drawn chart, with its transparent ground."""
    with Image.open(io.BytesIO(png)) as image:
        return data_uri(webp(image.convert("RGBA")))
