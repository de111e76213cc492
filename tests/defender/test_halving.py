import logging

import pytest
import torch

from aot_core.defender.halving import Halving


def test_work_is_begun_again_in_twice_as_many_parts(caplog: pytest.LogCaptureFixture) -> None:
    """Rows that fit three at a time, of eight: they are done in four parts, and so the next time at once."""
    halving, tried, left = Halving("rows are summed"), [], []

    def total() -> float:
        tried.append(halving.parts)
        done = []
        for part in torch.arange(8.0).chunk(halving.parts):
            if len(part) > 3:
                left.append("half a sum")
                raise torch.OutOfMemoryError("no memory left")
            done.append(float(part.sum()))
        return sum(done)

    with caplog.at_level(logging.WARNING):
        assert halving.run(total, most=8, undo=left.clear) == 28.0
    assert tried == [1, 2, 4] and not left
    assert "out of memory: from now on rows are summed in 4 parts" in caplog.text
    assert halving.run(total, most=8) == 28.0 and tried == [1, 2, 4, 4]


def test_what_does_not_fit_row_by_row_is_out_of_memory() -> None:
    tried: list[int] = []
    halving = Halving("rows are summed")

    def never() -> None:
        tried.append(halving.parts)
        raise torch.OutOfMemoryError("no memory left")

    with pytest.raises(torch.OutOfMemoryError):
        halving.run(never, most=4)
    assert tried == [1, 2, 4]
    with pytest.raises(torch.OutOfMemoryError):
        Halving("rows are summed").run(never, most=0)
    assert len(tried) == 4, "nothing is cut where nothing may be"


def test_other_errors_are_not_memory() -> None:
    halving = Halving("rows are summed")
    with pytest.raises(ZeroDivisionError):
        halving.run(lambda: 1 / 0, most=8)
    assert halving.parts == 1
