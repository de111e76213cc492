"""Nothing is collected while imports run, and what stood before stands after; what a stage imported is left alone."""

import gc
import subprocess
import sys
import weakref
from collections.abc import Iterator

import pytest

from aot_core.startup import quick_imports, stage_imports


class Cycle:
    def __init__(self) -> None:
        self.me = self


@pytest.fixture(autouse=True)
def as_it_was() -> Iterator[None]:
    enabled = gc.isenabled()
    yield
    (gc.enable if enabled else gc.disable)()
    gc.unfreeze()


@pytest.mark.parametrize("enabled", [True, False])
def test_the_collector_is_as_it_was(enabled: bool) -> None:
    (gc.enable if enabled else gc.disable)()
    with pytest.raises(ImportError), quick_imports():
        assert not gc.isenabled()
        raise ImportError("no such package")
    assert gc.isenabled() is enabled


def test_what_a_stage_imported_is_left_alone_and_what_one_left_behind_is_not() -> None:
    left = weakref.ref(Cycle())
    with stage_imports():
        assert left() is None
        imported = Cycle()
    assert not any(looked_through is imported for looked_through in gc.get_objects())
    worked = weakref.ref(Cycle())
    gc.collect()
    assert worked() is None, "the stage's own garbage goes as ever"


def test_imports_that_fail_freeze_nothing() -> None:
    before = gc.get_freeze_count()
    with pytest.raises(ImportError), stage_imports():
        raise ImportError("no such package")
    assert gc.get_freeze_count() == before


def test_at_its_end_a_process_looks_for_no_garbage() -> None:
    program = """
import gc
from aot_core.startup import quick_exit
class Loop:
    def __init__(self): self.me = self
    def __del__(self): print("collected", flush=True)
quick_exit()
Loop()
print("ends", flush=True)
"""
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert (said.stdout, said.stderr) == ("ends\n", "")
