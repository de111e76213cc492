"""Processes that live for a stage or a few shards: how they start and end sooner.

torch, transformers and diffusers make most of a million objects on import, and all of them stay. The garbage
collector, which looks through them again and again while they come and a few times more when the interpreter ends, is
a sixth of the imports' time and almost all of the end's (`benchmarks/orchestration.py stage`).
"""

import atexit
import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quick_imports() -> Iterator[None]:
    """No garbage collection inside the block."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def quick_exit() -> None:
    """When this process ends it will not look for garbage first: all of its memory goes anyway."""
    atexit.register(gc.freeze)
