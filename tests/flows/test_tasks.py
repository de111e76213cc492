"""What is tried again: a crash, and nothing else."""

from prefect import flow, task
from prefect.testing.utilities import prefect_test_harness

from aot_core.contracts.errors import StageBadInputError, StageCrashedError, StageOutOfMemoryError
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
