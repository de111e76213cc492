"""What listens to the project's events (`flows.events`) on a Prefect server: `aot deploy` makes it.

Two kinds. With `--tell BLOCK` one automation an event posts it to a block of Prefect's (a webhook, Slack, e-mail). And
two that start a deployment, switched off until somebody switches them on, as they take a device's hours.
"""

from collections.abc import Iterable, Mapping
from datetime import timedelta
from uuid import UUID

from prefect.automations import Automation
from prefect.client.orchestration import get_client
from prefect.events.actions import CallWebhook, RunDeployment, SendNotification
from prefect.events.schemas.automations import EventTrigger, Posture
from prefect.events.schemas.events import ResourceSpecification
from prefect.exceptions import ObjectNotFound

from flows.events import EVENTS
from flows.heartbeat import TAG, bring_up_to_date

WEBHOOK = "webhook"
"""The type of a block that takes any body; every other type is asked to notify."""
LATE, CRASHED = "prefect.flow-run.Late", "prefect.flow-run.Crashed"
OF_PREFECT = {LATE: "a scheduled run has not started", CRASHED: "a run's process died"}
"""What a process that is not there cannot tell: Prefect's server does."""

_BODY = """{"event": {{ event.event | tojson }}, "occurred": "{{ event.occurred }}", \
"resource": {{ event.resource.id | tojson }}, "payload": {{ event.payload | tojson }}}"""
_LINE = "{{ event.payload.message or event.event }}"


class BlockError(ValueError):
    """A block that nobody has made. The message says how one is made."""


def tellers(block: str) -> list[Automation]:
    """What tells a block of every event, not yet made on the server.

    Args:
        block: `TYPE/NAME`, such as `webhook/oncall` or `slack-webhook/team`.

    Raises BlockError for one that is not there.
    """
    kind, number = _block(block)
    return [_teller(name, told, block, kind, number) for name, told in (EVENTS | OF_PREFECT).items()]


def make_automations(wanted: Iterable[Automation]) -> None:
    """Make what is missing and bring the rest up to date."""
    for automation in wanted:
        bring_up_to_date(automation)


def starters(deployments: Mapping[str, UUID]) -> list[Automation]:
    """What starts a deployment at an event, switched off.

    Args:
        deployments: name to number, of those that there are.
    """
    rules = (
        ("aot: the champion's robustness fell -> coevolution", "aot.champion.fell", {}, "coevolution"),
        (
            "aot: promoted -> evaluate-champion",
            "aot.promotion.done",
            {"aot.action": ["promote", "force"]},
            "evaluate-champion",
        ),
    )
    return [
        Automation(
            name=name,
            description="Switched off until you switch it on: it takes a device's hours.",
            enabled=False,
            trigger=_trigger(event, labels),
            actions=[_start(deployments[target])],
        )
        for name, event, labels, target in rules
        if target in deployments
    ]


def _start(deployment: UUID) -> RunDeployment:
    """Run a deployment as its schedule would."""
    return RunDeployment(source="selected", deployment_id=deployment, parameters=None, job_variables=None)


def _teller(event: str, told: str, block: str, kind: str, number: UUID) -> Automation:
    action: CallWebhook | SendNotification = (
        CallWebhook(block_document_id=number, payload=_BODY)
        if kind == WEBHOOK
        else SendNotification(block_document_id=number, subject=f"AOT: {told}", body=_LINE)
    )
    return Automation(
        name=f"aot: {told} -> {block}", description=f"Event {event}.", trigger=_trigger(event, {}), actions=[action]
    )


def _trigger(event: str, labels: Mapping[str, list[str]]) -> EventTrigger:
    """Fires at each such event; at a run's own only where it is this project's."""
    of_prefect = event in OF_PREFECT
    resource = "prefect.flow-run.*" if of_prefect else "aot.*"
    match: dict[str, str | list[str]] = {"prefect.resource.id": [resource], **labels}
    related: dict[str, str | list[str]] = {}
    if of_prefect:
        related = {"prefect.resource.id": [f"prefect.tag.{TAG}"], "prefect.resource.role": ["tag"]}
    return EventTrigger(
        match=ResourceSpecification(match),
        match_related=ResourceSpecification(related),
        posture=Posture.Reactive,
        expect={event},
        threshold=1,
        within=timedelta(0),
    )


def _block(text: str) -> tuple[str, UUID]:
    """A block's type and number."""
    kind, _, name = text.partition("/")
    try:
        with get_client(sync_client=True) as client:
            return kind, client.read_block_document_by_name(name, kind, include_secrets=False).id
    except ObjectNotFound as error:
        raise BlockError(
            f"--tell {text}: Prefect has no such block; make it on Prefect's page (Blocks, then the type), and give "
            f"TYPE/NAME, such as webhook/{name or 'oncall'} or slack-webhook/team"
        ) from error
