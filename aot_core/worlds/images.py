"""Reading images that others made: inside their folder, of bounded size, upright, whole, RGB.

Everything that opens an image file of a data set or of a user's folder goes through `open_image`.
"""

import io
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageOps

MAX_PIXELS = 40_000_000
"""The largest image that is decoded unless a caller says otherwise: 40 megapixels, 120 MB as RGB."""

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF", "PPM")
"""Formats that photographs come in. Pillow knows others, some of which start other programs."""


class DataError(ValueError):
    """Bad input data. The message names the file or field and what to do about it."""


class RowError(DataError):
    """One picture of a source cannot be used. The message says which and why; `reason` is a word for the funnel."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason

    def __reduce__(self) -> tuple[type["RowError"], tuple[str, str]]:
        return RowError, (self.reason, str(self))


def safe_path(folder: Path, relative: str) -> Path:
    """The file `relative` inside `folder`. Raises DataError for a path that climbs out (also by a link)."""
    root = folder.resolve()
    # A NUL ends a path where the system reads it: it is looked for before the system is asked.
    path = root if "\0" in relative else (root / relative).resolve()
    if not relative or path == root or not path.is_relative_to(root):
        raise DataError(
            f"path {relative!r} does not lie inside {folder}; give a path relative to that folder, without '..'"
        )
    return path


def open_image(folder: Path, relative: str, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """The image `relative` of `folder`: RGB, turned upright by its EXIF orientation, fully decoded.

    16-bit grey is scaled to 8 bits, what is transparent stands on white. Raises RowError naming the file and the fix
    where the file is missing, is no image, moves, holds more than `max_pixels` pixels (looked up in its header,
    before anything is decoded) or is truncated; DataError where the path climbs out.
    """
    path = safe_path(folder, relative)
    if not path.is_file():
        raise RowError("missing", f"image {relative!r} is missing from {folder}; add the file or drop its entry")
    with _opened(path, relative, max_pixels) as image:
        return _upright_rgb(image, relative)


def decode_image(content: bytes, name: str, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """As `open_image`, for an image that comes as bytes; `name` is what messages call it."""
    with _opened(io.BytesIO(content), name, max_pixels) as image:
        return _upright_rgb(image, name)


def image_size(folder: Path, relative: str, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """Upright width and height. Raises as `open_image`.

    A JPEG is read by its header alone, so a truncated one is not found out here; a PNG may say how it is turned
    behind its pixels, so it is decoded.
    """
    path = safe_path(folder, relative)
    if not path.is_file():
        raise RowError("missing", f"image {relative!r} is missing from {folder}; add the file or drop its entry")
    with _opened(path, relative, max_pixels) as image:
        width, height = image.size
        turned = image.getexif().get(ExifTags.Base.Orientation, 1) >= 5
        return (height, width) if turned else (width, height)


def _upright_rgb(image: Image.Image, name: str) -> Image.Image:
    # Phones write JPEGs with a second picture behind the first (MPO): the first is the photograph.
    if getattr(image, "n_frames", 1) > 1 and image.format != "MPO":
        raise RowError(
            "animated", f"image {name!r} is animated, and no box says which frame it belongs to; give a still image"
        )
    upright = ImageOps.exif_transpose(image)
    if upright.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(upright) >> 8).astype(np.uint8)).convert("RGB")
    if upright.mode in ("I", "F"):
        raise RowError("depth", f"image {name!r} has {upright.mode!r} pixels, whose white is unknown; save it as 8 bit")
    if upright.has_transparency_data:
        shown = upright.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", shown.size, "white"), shown).convert("RGB")
    return upright.convert("RGB")


@contextmanager
def _opened(file: Path | io.BytesIO, name: str, max_pixels: int) -> Iterator[Image.Image]:
    """The image file, header read; what goes wrong with it inside the block becomes a RowError."""
    try:
        with warnings.catch_warnings():
            # Pillow warns from 89 megapixels on and raises from 179 on; our own, stricter limit decides.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(file, formats=FORMATS) as image:
                width, height = image.size
                if width * height > max_pixels:
                    raise RowError("too_large", _too_large(name, f"{width}x{height} pixels are", max_pixels))
                yield image
    except Image.DecompressionBombError as error:
        raise RowError("too_large", _too_large(name, "its header claims", max_pixels)) from error
    except (OSError, SyntaxError, ValueError, struct.error) as error:
        if isinstance(error, DataError):
            raise
        # Pillow tells an unknown format (UnidentifiedImageError) and a cut-off file by OSError, a broken PNG
        # chunk by SyntaxError, other broken headers by the rest.
        raise RowError(
            "unreadable",
            f"image {name!r} cannot be read ({error}); it is truncated or not an image: copy it again or drop its "
            "entry",
        ) from error


def _too_large(relative: str, what: str, max_pixels: int) -> str:
    return (
        f"image {relative!r}: {what} more than the limit of {max_pixels} pixels; "
        "scale it down, or raise limits.max_image_pixels if you trust the file"
    )
