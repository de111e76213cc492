"""How often a run says that it lives, and after what silence its process is taken for dead.

Both follow from one number, which has to stand in the environment of the process that runs the flow: inside the flow it
is too late, as Prefect has read it by then. So every deployment carries it to its runs, whatever its pool's type is.
"""

import os
from datetime import timedelta

from prefect.automations import Automation
from prefect.client.schemas.objects import StateType
from prefect.events.actions import ChangeFlowRunState
from prefect.events.schemas.automations import EventTrigger, Posture
from prefect.events.schemas.events import ResourceSpecification

FREQUENCY = "PREFECT_FLOWS_HEARTBEAT_FREQUENCY"
SECONDS = 30
"""The frequency unless `FREQUENCY` is set where the deployments are made; the least that Prefect allows."""
AUTOMATION = "aot: a run whose heartbeat stops has crashed"
TAG = "aot"
"""Of this project's runs. Others on the same server have other frequencies, and are not this automation's business."""

_HEARTBEAT = "prefect.flow-run.heartbeat"
_ENDS = ("Completed", "Failed", "Cancelled", "Crashed", "TimedOut")


def frequency() -> int:
    """Seconds between two heartbeats of a deployment's runs."""
    return int(os.environ.get(FREQUENCY) or SECONDS)


def job_environment() -> dict[str, str]:
    """What a deployment's runs need in their process's environment."""
    return {FREQUENCY: str(frequency())}


def silence_limit() -> int:
    """Seconds without a heartbeat after which a run counts as crashed: one may be lost, and the next one late."""
    return 3 * frequency()


def make_automation(name: str = AUTOMATION) -> None:
    """A run that has sent a heartbeat and then none for a while is marked Crashed; one that ended is left alone.

    An automation of this name is brought up to date where it says something else. It stays switched off where somebody
    has switched it off, and is not touched where nothing has changed: a silence that it is counting would be forgotten.
    """
    bring_up_to_date(_automation(name))


def bring_up_to_date(wanted: Automation) -> None:
    """Make an automation, or change the one of its name where that says something else. It stays switched off or on."""
    try:
        found: Automation = Automation.read(name=wanted.name)  # pyright: ignore[reportAssignmentType]: outside of any event loop
    except ValueError:
        wanted.create()  # pyright: ignore[reportUnusedCoroutine]
        return
    if _says(found) != _says(wanted):
        found.trigger, found.actions = wanted.trigger, wanted.actions
        found.update()  # pyright: ignore[reportUnusedCoroutine]


def _automation(name: str) -> Automation:
    return Automation(
        name=name,
        trigger=EventTrigger(
            match=ResourceSpecification({"prefect.resource.id": ["prefect.flow-run.*"]}),
            match_related=ResourceSpecification(
                {"prefect.resource.id": [f"prefect.tag.{TAG}"], "prefect.resource.role": ["tag"]}
            ),
            for_each={"prefect.resource.id"},
            posture=Posture.Proactive,
            after={_HEARTBEAT},
            expect={_HEARTBEAT, *(f"prefect.flow-run.{end}" for end in _ENDS)},
            threshold=1,
            within=timedelta(seconds=silence_limit()),
        ),
        actions=[
            # Not by force: a busy server can lose the event of a run's end, and counts its silence then. Asked rather
            # than forced, it leaves the state of a run that has ended as it is.
            ChangeFlowRunState(
                name="Crashed",
                state=StateType.CRASHED,
                message=f"No heartbeat for {silence_limit()} s: its process died.",
                force=False,
            )
        ],
    )


def _says(automation: Automation) -> object:
    """What decides whom it marks, and how; without the numbers that the server gives."""
    trigger = automation.trigger
    assert isinstance(trigger, EventTrigger)
    return trigger.model_dump(exclude={"id"}), [action.model_dump() for action in automation.actions]
