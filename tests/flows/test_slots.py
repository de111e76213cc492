"""Two campaigns, one GPU slot: they queue."""

import threading
from collections.abc import Iterator

import pytest
from prefect.testing.utilities import prefect_test_harness

from aot_core.contracts.errors import LauncherError, StageCancelledError
from flows.slots import gpu_slot, make_slots


@pytest.fixture(scope="module", autouse=True)
def prefect() -> Iterator[None]:
    with prefect_test_harness(server_startup_timeout=180):
        yield


def test_a_slot_is_held_by_one_at_a_time_and_names_its_gpu() -> None:
    assert make_slots(2) == ["aot-gpu-0", "aot-gpu-1"]
    assert make_slots(2) == ["aot-gpu-0", "aot-gpu-1"], "made once, found the second time"
    inside: list[str] = []
    first_holds, first_may_go = threading.Event(), threading.Event()

    def first() -> None:
        with gpu_slot(["aot-gpu-1"], lambda: False) as gpu:
            inside.append(f"first {gpu}")
            first_holds.set()
            first_may_go.wait(60)
            inside.append("first leaves")

    holder = threading.Thread(target=first)
    holder.start()
    assert first_holds.wait(60)
    with pytest.raises(StageCancelledError), gpu_slot(["aot-gpu-1"], lambda: True):
        pass
    with gpu_slot(["aot-gpu-1", "aot-gpu-0"], lambda: False) as gpu:
        assert gpu == "0", "the other one is taken"
    first_may_go.set()
    with gpu_slot(["aot-gpu-1"], lambda: False):
        inside.append("second")
    holder.join()
    assert inside == ["first 1", "first leaves", "second"]


def test_a_slot_that_nobody_made_is_an_error_and_not_a_free_pass() -> None:
    with pytest.raises(LauncherError, match="aot setup"), gpu_slot(["aot-gpu-99"], lambda: False):
        pass


def test_no_slots_no_queue() -> None:
    with gpu_slot([], lambda: True) as gpu:
        assert gpu is None
