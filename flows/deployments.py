"""Schedules, work pool, GPU slots and the automation: `python -m flows.deployments` makes what is missing.

Idempotent: a worker runs it at every start. `prefect.yaml` says the same for `prefect deploy`. Overlapping runs are
refused twice: here by a deployment's concurrency limit (the new run is cancelled), and by the campaign's own lock.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from prefect.automations import Automation
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy, StateType
from prefect.deployments.runner import RunnerDeployment
from prefect.events.actions import ChangeFlowRunState
from prefect.events.schemas.automations import EventTrigger, Posture
from prefect.events.schemas.events import ResourceSpecification
from prefect.exceptions import ObjectNotFound
from prefect.flows import Flow
from prefect.types.entrypoint import EntrypointType

from flows.scheduled import evaluate_champion, maintenance, promotion, reevaluation, scheduled_coevolution
from flows.slots import make_slots

HEARTBEAT_SECONDS = 30
"""`PREFECT_FLOWS_HEARTBEAT_FREQUENCY` of the workers (30 is the least that Prefect allows)."""
SILENT_SECONDS = 5 * HEARTBEAT_SECONDS
AUTOMATION = "aot: a run whose heartbeat stops has crashed"
TIMEZONE = "UTC"


@dataclass(frozen=True)
class Schedule:
    """One deployment: which flow, when, with which parameters."""

    name: str
    flow: "Flow[Any, Any]"
    cron: str | None
    """None: only when somebody, or an automation, asks for it."""
    parameters: dict[str, Any] = field(default_factory=dict[str, Any])


def schedules(config: str, home: str, overrides: Sequence[str] = ()) -> list[Schedule]:
    """Every deployment of this project.

    Args:
        overrides: `section.field=value`, as `aot run --set` takes them: where the stages run.
    """
    campaign = {"config": config, "overrides": list(overrides), "home": home}
    return [
        Schedule("coevolution", scheduled_coevolution, "0 20 * * 5", campaign),
        Schedule("reevaluation", reevaluation, "0 6 * * 1", campaign),
        Schedule("evaluate-champion", evaluate_champion, "0 3 * * *", {**campaign, "newest": 8}),
        Schedule("promotion", promotion, None, {**campaign, "version": None, "why": ""}),
        Schedule("maintenance", maintenance, "17 * * * *", {**campaign, "keep_days": 30, "delete": False}),
    ]


def deployment_of(schedule: Schedule, pool: str) -> RunnerDeployment:
    """At most one run at a time; one that is due while another runs is cancelled, not queued."""
    return RunnerDeployment.from_flow(
        schedule.flow,
        name=schedule.name,
        cron=schedule.cron,
        parameters=schedule.parameters,
        concurrency_limit=ConcurrencyLimitConfig(limit=1, collision_strategy=ConcurrencyLimitStrategy.CANCEL_NEW),
        work_pool_name=pool,
        entrypoint_type=EntrypointType.MODULE_PATH,
        tags=["aot"],
    )


def deploy(pool: str, gpus: int, config: str, home: str, overrides: Sequence[str] = ()) -> list[str]:
    """Make pool, slots, automation and deployments, or bring them up to date; returns the deployments' names."""
    with get_client(sync_client=True) as client:
        try:
            client.read_work_pool(pool)
        except ObjectNotFound:
            client.create_work_pool(WorkPoolCreate(name=pool, type="process"))
    slots = make_slots(gpus)
    make_automation()
    if slots:
        overrides = [*overrides, f"run.gpu_slots={json.dumps(slots)}"]
    chosen = schedules(config, home, overrides)
    for schedule in chosen:
        deployment_of(schedule, pool).apply()
    return [schedule.name for schedule in chosen]


def make_automation(silent_seconds: float = SILENT_SECONDS, name: str = AUTOMATION) -> None:
    """A run that has sent a heartbeat and then none for a while is marked Crashed; one that ended is left alone."""
    try:
        Automation.read(name=name)  # pyright: ignore[reportUnusedCoroutine]: called outside of any event loop
    except ValueError:
        heartbeat = "prefect.flow-run.heartbeat"
        automation = Automation(
            name=name,
            trigger=EventTrigger(
                match=ResourceSpecification({"prefect.resource.id": ["prefect.flow-run.*"]}),
                for_each={"prefect.resource.id"},
                posture=Posture.Proactive,
                after={heartbeat},
                expect={heartbeat, *(f"prefect.flow-run.{end}" for end in _ENDS)},
                threshold=1,
                within=timedelta(seconds=silent_seconds),
            ),
            actions=[
                ChangeFlowRunState(
                    name="Crashed",
                    state=StateType.CRASHED,
                    message="No heartbeat any more: its process died.",
                    force=True,
                )
            ],
        )
        automation.create()  # pyright: ignore[reportUnusedCoroutine]


_ENDS = ("Completed", "Failed", "Cancelled", "Crashed")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m flows.deployments", description=__doc__)
    parser.add_argument("--pool", default="aot")
    parser.add_argument("--gpus", type=int, default=0)
    parser.add_argument("--config", default="/configs/paper.toml")
    parser.add_argument("--home", default="/home/aot")
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="SECTION.FIELD=VALUE")
    arguments = parser.parse_args()
    given = (arguments.pool, arguments.gpus, arguments.config, arguments.home, arguments.overrides)
    print("deployed", *deploy(*given))


if __name__ == "__main__":
    main()
