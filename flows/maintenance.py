"""Tidying after processes that died: a killed orchestrator leaves its Prefect run Running for ever."""

from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.client.schemas import StateType
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
    FlowRunFilterTags,
)
from prefect.runtime import flow_run
from prefect.states import Crashed


def take_over(campaign_key: str) -> list[UUID]:
    """Mark this flow run as the campaign's, and every other one still Running as Crashed; returns those.

    To be called inside a flow run that holds the campaign's lock: whoever else claims to run it is dead.
    """
    tag = f"campaign-key:{campaign_key[:12]}"
    own = flow_run.get_id()
    assert own is not None, "called outside a flow run"
    running = FlowRunFilter(
        tags=FlowRunFilterTags(all_=[tag]),
        state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.RUNNING])),
    )
    with get_client(sync_client=True) as client:
        client.update_flow_run(UUID(own), tags=[tag])
        dead = [run.id for run in client.read_flow_runs(flow_run_filter=running) if run.id != UUID(own)]
        for run_id in dead:
            state = Crashed(message=f"Its process died; flow run {own} goes on with the campaign.")
            client.set_flow_run_state(run_id, state, force=True)
    return dead
