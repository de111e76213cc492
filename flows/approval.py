"""A person's approval of a promotion: asked in a flow run of its own, answered in Prefect or by `aot promote`.

decision -> question (a paused flow run) -> approved: promoted    rejected: final    time-out: rejected
"""

import contextvars
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
from prefect import flow, tags
from prefect.artifacts import create_markdown_artifact
from prefect.client.orchestration import get_client
from prefect.client.schemas import StateType
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
    FlowRunFilterTags,
)
from prefect.client.schemas.objects import FlowRun
from prefect.exceptions import FlowPauseTimeout, PrefectException
from prefect.flow_runs import pause_flow_run
from prefect.input import RunInput
from prefect.states import Cancelled
from pydantic import Field

from aot_core.contracts.promotion import Decision, LedgerEntry, PromotionSettings
from aot_core.evaluation.decision_page import decision_markdown
from aot_core.promotion.transaction import Promoter
from aot_core.tracking.database import told
from aot_core.tracking.protocol import TrackingError
from flows.links import prefect_pages

logger = logging.getLogger(__name__)

_POLL_SECONDS = 5
"""How often to check for an answer."""
_RELEASED = "aot: the champion changed meanwhile"
"""Who answers a question that is moot."""


class Leave(RunInput):
    """What a person is asked when a promotion waits."""

    promote: bool
    who: str = Field(min_length=1)
    why: str = ""


def with_approval(decision: Decision, settings: PromotionSettings, acting: Promoter, page: Path | None) -> str:
    """Promote if a person approves. A rejection is final: nobody is asked twice about one decision."""
    declined = [entry for entry in acting.ledger.entries() if _is_no(entry, decision)]
    if declined:
        return f"declined by {declined[-1].who}; `aot promote` can still promote it"
    _close_questions(decision)
    asked, seconds = time.monotonic(), round(settings.approval_hours * 3600)

    def moot() -> bool:
        with told():
            return acting.champion() != decision.champion

    with tags(_question_tag(decision)), _released_when(moot, _question_tag(decision), _POLL_SECONDS):
        leave = approval(decision, seconds, page, return_state=True).result(raise_on_failure=False)
    if acting.champion() == decision.challenger:
        return "promoted by hand in the meantime"
    if isinstance(leave, Leave) and leave.who == _RELEASED:
        return f"not promoted: version {acting.champion() or 'none'} was made the champion in the meantime"
    if isinstance(leave, Leave):
        if leave.promote:
            acting.promote(decision, f"{leave.who}: {leave.why or 'approved'}; {decision.reason}")
            return f"approved by {leave.who}, and promoted"
        acting.note("declined", decision, leave.why or "no reason given", who=leave.who)
        return f"declined by {leave.who}"
    if time.monotonic() - asked < seconds:
        return (
            f"the approval request ended without an answer ({leave}); `aot run` asks again, `aot promote` approves it"
        )
    acting.note("expired", decision, f"nobody answered within {settings.approval_hours:g} h")
    return f"nobody answered within {settings.approval_hours:g} h; `aot promote` can still promote it"


@flow(name="promotion-approval", flow_run_name="{decision.model} {decision.challenger}", validate_parameters=False)
def approval(decision: Decision, seconds: int, page: Path | None = None) -> Leave | None:
    """Wait for a person, in a flow run of its own: one that nobody answers ends as failed, and it alone.

    What there is to see stands in the question, and in an artifact of this run.
    """
    shown = decision_markdown(decision) if page is None else page.read_text(encoding="utf-8")
    key = f"approval-{decision.model}".lower().replace("_", "-").replace(".", "-")
    number = create_markdown_artifact(key=key, markdown=shown, description="The gate's table; edits before and after.")
    wide = f"[The same on a page of its own]({prefect_pages()}/artifacts/artifact/{number})\n\n"
    # No initial `who`: with one, Prefect would take an answer without a name.
    question = Leave.with_initial_data(description=wide + shown, promote=False)
    try:
        return pause_flow_run(wait_for_input=question, timeout=seconds, poll_interval=_POLL_SECONDS)
    except FlowPauseTimeout:
        return None


def _is_no(entry: LedgerEntry, decision: Decision) -> bool:
    return entry.kind == "declined" and entry.decision_sha256 == decision.sha256


def _question_tag(decision: Decision) -> str:
    return f"decision:{decision.sha256}"


def _close_questions(decision: Decision) -> None:
    """Cancel the runs that still ask about this decision. To be called under its lock: the processes that asked are
    dead, and an answer would reach nobody."""
    with get_client(sync_client=True) as client:
        for run in _paused_runs(_question_tag(decision)):
            message = "The process that asked has died; a new run asks again."
            client.set_flow_run_state(run.id, Cancelled(message=message), force=True)


def _paused_runs(tag: str) -> list[FlowRun]:
    """The paused flow runs of a tag."""
    paused = FlowRunFilter(
        tags=FlowRunFilterTags(all_=[tag]),
        state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.PAUSED])),
    )
    with get_client(sync_client=True) as client:
        return client.read_flow_runs(flow_run_filter=paused)


@contextmanager
def _released_when(moot: Callable[[], bool], tag: str, every: float) -> Iterator[None]:
    """While the block waits in a paused flow run of this tag, resume that run as `_RELEASED` once the question is moot:
    `aot promote` has moved the alias, and nobody must wait for the time-out.

    Args:
        moot: called every so many seconds.
    """
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(every):
            try:
                if moot() and (runs := _paused_runs(tag)):
                    with get_client(sync_client=True) as client:
                        for run in runs:
                            client.resume_flow_run(run.id, run_input={"promote": False, "who": _RELEASED})
            except (TrackingError, httpx.HTTPError, PrefectException) as error:
                logger.debug("asked again in %g s: %s", every, error)  # the time-out still ends the wait

    context = contextvars.copy_context()  # Prefect's settings
    watcher = threading.Thread(target=lambda: context.run(watch), name="released", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()
