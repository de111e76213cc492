"""What the garbage collector costs a process that works on stages, and how it costs less.

torch, transformers and diffusers make most of a million objects on import, and all of them stay. The collector, which
looks through them again and again while they come and a few times more when the interpreter ends, is a sixth of the
imports' time and almost all of the end's (`benchmarks/orchestration.py stage`); in between, half a second a look.
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


@contextmanager
def stage_imports() -> Iterator[None]:
    """A stage's imports, in the block, which the collector will not look through again while the stage works.

    What an earlier stage of this process left behind goes first: a model in a cycle would be kept for good. For the
    same reason this is no block to import in while a stage works: that is `quick_imports`.
    """
    gc.collect()
    with quick_imports():
        yield
    gc.freeze()


def quick_exit() -> None:
    """When this process ends it will not look for garbage first: all of its memory goes anyway."""
    atexit.register(gc.freeze)
