"""Tidying after processes that died: a killed orchestrator leaves its Prefect run Running for ever."""

from collections.abc import Callable
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.client.schemas import StateType
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
    FlowRunFilterTags,
)
from prefect.client.schemas.responses import SetStateStatus
from prefect.runtime import flow_run
from prefect.states import Crashed

from aot_core.home import Home

_TAG, _HOME_TAG = "campaign-key:", "campaign-home:"
"""Whose run it is. Locks are a home's: of the runs of another home on the same Prefect server nothing is known here."""


def take_over(campaign_key: str, home: Home) -> list[UUID]:
    """Mark this flow run as the campaign's, and every other one of this home still Running as Crashed; returns those.

    To be called inside a flow run that holds the campaign's lock: any other run that claims the campaign is dead.
    """
    mine = [_TAG + campaign_key, _HOME_TAG + home.identity]
    own = flow_run.get_id()
    assert own is not None, "called outside a flow run"
    running = FlowRunFilter(
        tags=FlowRunFilterTags(all_=mine),
        state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.RUNNING])),
    )
    with get_client(sync_client=True) as client:
        client.update_flow_run(UUID(own), tags=[*client.read_flow_run(UUID(own)).tags, *mine])  # it replaces them
        dead = [run.id for run in client.read_flow_runs(flow_run_filter=running) if run.id != UUID(own)]
        for run_id in dead:
            state = Crashed(message=f"Its process died; flow run {own} has taken the campaign over.")
            client.set_flow_run_state(run_id, state)  # not forced: one that has ended meanwhile keeps its state
    return dead


def crash_silent_runs(home: Home, is_running: Callable[[str], bool]) -> list[UUID]:
    """Mark this home's flow runs that are Running although no process holds their campaign's lock as Crashed.

    Args:
        is_running: whether a process lives, by the campaign's key.
    """
    running = FlowRunFilter(
        tags=FlowRunFilterTags(all_=[_HOME_TAG + home.identity]),
        state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.RUNNING])),
    )
    dead: list[UUID] = []
    with get_client(sync_client=True) as client:
        for run in client.read_flow_runs(flow_run_filter=running):
            keys = [tag.removeprefix(_TAG) for tag in run.tags if tag.startswith(_TAG)]
            if keys and not is_running(keys[0]):
                state = Crashed(message="No process holds its campaign any more.")
                # Not forced: one that has ended meanwhile keeps its state.
                if client.set_flow_run_state(run.id, state).status == SetStateStatus.ACCEPT:
                    dead.append(run.id)
    return dead
