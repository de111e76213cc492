"""Where models that were registered before the worlds had a package of their own look for `aot_core.worlds.images`."""

from aot_core.worlds.images import DataError, open_image

__all__ = ["DataError", "open_image"]
