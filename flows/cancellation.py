"""Has somebody cancelled this flow run? Prefect signals a worker's process, but not the process of an `aot run`."""

from collections.abc import Callable
from uuid import UUID

import httpx
from prefect.client.orchestration import get_client
from prefect.client.schemas import StateType
from prefect.exceptions import PrefectException
from prefect.runtime import flow_run


def watch_this_run() -> Callable[[], bool]:
    """A function that launchers call every few seconds. A server that does not answer has cancelled nothing."""
    run_id = flow_run.get_id()
    assert run_id is not None, "called outside a flow run"

    def cancelled() -> bool:
        try:
            with get_client(sync_client=True) as client:
                state = client.read_flow_run(UUID(run_id)).state
        except (httpx.HTTPError, PrefectException):
            return False
        return state is not None and state.type in (StateType.CANCELLING, StateType.CANCELLED)

    return cancelled
