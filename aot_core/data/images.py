"""Reading images that others made: inside their folder, of bounded size, upright, whole, RGB.

Everything that opens an image file of a data set or of a user's folder goes through `open_image`.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import ExifTags, Image, ImageOps

MAX_PIXELS = 40_000_000
"""The largest image that is decoded unless a caller says otherwise: 40 megapixels, 120 MB as RGB."""


class DataError(ValueError):
    """Bad input data. The message names the file or field and what to do about it."""


def safe_path(folder: Path, relative: str) -> Path:
    """The file `relative` inside `folder`. Raises DataError for a path that climbs out (also by a link)."""
    root = folder.resolve()
    path = (root / relative).resolve()
    if not relative or "\0" in relative or path == root or not path.is_relative_to(root):
        raise DataError(
            f"path {relative!r} does not lie inside {folder}; give a path relative to that folder, without '..'"
        )
    return path


def open_image(folder: Path, relative: str, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """The image `relative` of `folder`: RGB, turned upright by its EXIF orientation, fully decoded.

    Raises DataError naming the file and the fix where the path climbs out, or the file is missing, is no image,
    holds more than `max_pixels` pixels (looked up in its header, before anything is decoded) or is truncated.
    """
    with _opened(folder, relative, max_pixels) as image:
        return ImageOps.exif_transpose(image).convert("RGB")


def image_size(folder: Path, relative: str, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """Upright width and height. Raises DataError as `open_image`.

    A JPEG is read by its header alone, so a truncated one is not found out here; a PNG may say how it is turned
    behind its pixels, so it is decoded.
    """
    with _opened(folder, relative, max_pixels) as image:
        width, height = image.size
        turned = image.getexif().get(ExifTags.Base.Orientation, 1) >= 5
        return (height, width) if turned else (width, height)


@contextmanager
def _opened(folder: Path, relative: str, max_pixels: int) -> Iterator[Image.Image]:
    """The image file, header read; what goes wrong with it inside the block becomes a DataError."""
    path = safe_path(folder, relative)
    if not path.is_file():
        raise DataError(f"image {relative!r} is missing from {folder}; add the file or drop its entry")
    try:
        with warnings.catch_warnings():
            # Pillow warns from 89 megapixels on and raises from 179 on; our own, stricter limit decides.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                width, height = image.size
                if width * height > max_pixels:
                    raise DataError(_too_large(relative, f"{width}x{height} pixels are", max_pixels))
                yield image
    except Image.DecompressionBombError as error:
        raise DataError(_too_large(relative, "its header claims", max_pixels)) from error
    except (OSError, SyntaxError) as error:
        # Pillow tells an unknown format (UnidentifiedImageError) and a cut-off file by OSError, a broken PNG
        # chunk by SyntaxError.
        raise DataError(
            f"image {relative!r} in {folder} cannot be read ({error}); it is truncated or no image: "
            "copy it again or drop its entry"
        ) from error


def _too_large(relative: str, what: str, max_pixels: int) -> str:
    return (
        f"image {relative!r}: {what} more than the limit of {max_pixels} pixels; "
        "scale it down, or raise limits.max_pixels if you trust the file"
    )
