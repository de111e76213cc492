"""Nothing is collected while imports run, and what stood before stands after."""

import gc
import subprocess
import sys
from collections.abc import Iterator

import pytest

from aot_core.startup import quick_imports


@pytest.fixture(autouse=True)
def as_it_was() -> Iterator[None]:
    enabled = gc.isenabled()
    yield
    (gc.enable if enabled else gc.disable)()


@pytest.mark.parametrize("enabled", [True, False])
def test_the_collector_is_as_it_was(enabled: bool) -> None:
    (gc.enable if enabled else gc.disable)()
    with pytest.raises(ImportError), quick_imports():
        assert not gc.isenabled()
        raise ImportError("no such package")
    assert gc.isenabled() is enabled


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
