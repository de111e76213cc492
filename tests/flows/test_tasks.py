"""What is tried again: a crash, and nothing else. And what a stage's place is made of."""

from pathlib import Path

import pytest
from prefect import flow, task
from prefect.testing.utilities import prefect_test_harness

from aot_core.contracts.errors import StageBadInputError, StageCrashedError, StageOutOfMemoryError
from aot_core.contracts.loading import ConfigError
from flows.campaign import _read
from flows.tasks import _may_help_to_retry


def test_only_a_crash_is_tried_again() -> None:
    tried: list[str] = []

    @task(retries=1, retry_condition_fn=_may_help_to_retry)
    def fail(kind: type[Exception]) -> None:
        tried.append(kind.__name__)
        raise kind("for the test")

    @flow
    def all_kinds() -> str:
        for kind in (StageCrashedError, StageBadInputError, StageOutOfMemoryError):
            fail(kind, return_state=True)
        return "done"

    with prefect_test_harness(server_startup_timeout=120):
        assert all_kinds() == "done"
    assert tried == ["StageCrashedError", "StageCrashedError", "StageBadInputError", "StageOutOfMemoryError"]


def test_accelerate_s_file_travels_with_the_stage(tmp_path: Path) -> None:
    (tmp_path / "fsdp.yaml").write_text("distributed_type: FSDP")
    assert _read("run.accelerate", str(tmp_path / "fsdp.yaml")) == "distributed_type: FSDP"
    assert _read("run.accelerate", None) == ""
    with pytest.raises(
        ConfigError, match=r"run.accelerate: .*nowhere.yaml' cannot be read .*name a text file that is there"
    ):
        _read("run.accelerate", str(tmp_path / "nowhere.yaml"))
