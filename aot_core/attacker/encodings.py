"""A least-recently-used cache of encoded sources and prompts.

Everything is encoded singly, never in a batch, so that an encoding has the same bits whether it was cached or not.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from contextlib import AbstractContextManager

from PIL import Image
from torch import Tensor

Encoding = tuple[Tensor, ...]


class EncodingCache:
    """At most `size` encodings."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.made = 0
        """How many encodings were computed so far."""
        self._kept: OrderedDict[Hashable, Encoding] = OrderedDict()

    def get(
        self, wanted: Mapping[Hashable, Callable[[], Encoding]], at_work: Callable[[], AbstractContextManager[None]]
    ) -> dict[Hashable, Encoding]:
        """The encodings of all keys; missing ones are computed, all within one `at_work`."""
        missing = [key for key in wanted if key not in self._kept]
        found = {key: self._kept[key] for key in wanted if key in self._kept}
        if missing:
            with at_work():
                found |= {key: wanted[key]() for key in missing}
            self.made += len(missing)
        for key in wanted:
            self._kept[key] = found[key]
            self._kept.move_to_end(key)
        while len(self._kept) > self.size:
            self._kept.popitem(last=False)
        return found


def digest(image: Image.Image) -> str:
    """Of an image's pixels and size."""
    return hashlib.blake2b(f"{image.mode}{image.size}".encode() + image.tobytes(), digest_size=16).hexdigest()
