"""Schedules, work pool, GPU slots and the automation: `aot deploy` makes what is missing.

Idempotent: it may be run at every start. `prefect.yaml` says the same for `prefect deploy`. Overlapping runs are
refused twice: here by a deployment's concurrency limit (the new run is cancelled), and by the campaign's own lock.
"""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import httpx
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy
from prefect.client.schemas.schedules import CronSchedule
from prefect.deployments.runner import RunnerDeployment
from prefect.exceptions import ObjectNotFound
from prefect.flows import Flow
from prefect.types.entrypoint import EntrypointType
from pydantic import ValidationError

from flows.automations import make_automations, starters, tellers
from flows.heartbeat import TAG, job_environment, make_automation
from flows.own_server import keep_own_server
from flows.scheduled import evaluate_champion, maintenance, promotion, reevaluation, scheduled_coevolution
from flows.sentences import run_flow
from flows.slots import make_slots

FRIDAY_EVENING = "0 20 * * 5"
PROCESS = "process"


@dataclass(frozen=True)
class Schedule:
    """One deployment: which flow, when, with which parameters."""

    name: str
    flow: "Flow[Any, Any]"
    cron: str | None
    """In UTC. None: only when somebody, or an automation, asks for it."""
    parameters: dict[str, Any] = field(default_factory=dict[str, Any])


def schedules(
    config: str, home: str, overrides: Sequence[str] = (), campaign_cron: str = FRIDAY_EVENING
) -> list[Schedule]:
    """Every deployment of this project.

    Args:
        overrides: `section.field=value`, as `aot run --set` takes them: where the stages run.
    """
    campaign = {"config": config, "overrides": list(overrides), "home": home}
    return [
        Schedule("coevolution", scheduled_coevolution, campaign_cron, campaign),
        Schedule("reevaluation", reevaluation, "0 6 * * 1", campaign),
        Schedule("evaluate-champion", evaluate_champion, "0 3 * * *", {**campaign, "newest": 8}),
        Schedule("promotion", promotion, None, {**campaign, "version": None, "why": ""}),
        Schedule("maintenance", maintenance, "17 * * * *", {**campaign, "keep_days": 30, "delete": False}),
    ]


def deployment_of(schedule: Schedule, pool: str, working_folder: str | None = None) -> RunnerDeployment:
    """At most one run at a time; one that is due while another runs is cancelled, not queued.

    Args:
        working_folder: where its runs work, on a pool of type process; a new, empty folder unless given.
    """
    job: dict[str, Any] = {"env": job_environment()}
    if working_folder is not None:
        job["working_dir"] = working_folder
    return RunnerDeployment.from_flow(
        schedule.flow,
        name=schedule.name,
        cron=schedule.cron,
        parameters=schedule.parameters,
        concurrency_limit=ConcurrencyLimitConfig(limit=1, collision_strategy=ConcurrencyLimitStrategy.CANCEL_NEW),
        work_pool_name=pool,
        job_variables=job,
        entrypoint_type=EntrypointType.MODULE_PATH,
        tags=[TAG],
    )


def deploy(
    chosen: Sequence[Schedule], pool: str, working_folder: str | None = None, blocks: Sequence[str] = ()
) -> None:
    """Make pool, automations and deployments, or bring them up to date.

    Args:
        blocks: of Prefect's, `TYPE/NAME`, that are told of events. Raises BlockError for one that is not there.
    """
    with get_client(sync_client=True) as client:
        try:
            kind = client.read_work_pool(pool).type
        except ObjectNotFound:
            kind = client.create_work_pool(WorkPoolCreate(name=pool, type=PROCESS)).type
    telling = [automation for block in blocks for automation in tellers(block)]
    make_automation()
    folder = working_folder if kind == PROCESS else None
    numbers = {schedule.name: _number(deployment_of(schedule, pool, folder)) for schedule in chosen}
    make_automations([*starters(numbers), *telling])


def _number(deployment: RunnerDeployment) -> UUID:
    """Make a deployment; returns its number."""
    number = deployment.apply()
    assert isinstance(number, UUID), "outside of any event loop it is made at once"
    return number


def demand_cron(text: str) -> None:
    """Raises ValueError unless Prefect reads it as a schedule."""
    try:
        CronSchedule(cron=text)
    except ValidationError as error:
        raise ValueError(
            f"--schedule {text!r} is not a cron schedule; write minute, hour, day, month and weekday (in UTC), "
            f"such as {FRIDAY_EVENING!r} for Friday evenings"
        ) from error


def main() -> int:
    """What `aot deploy` becomes, once it has read the config and set the environment."""
    parser = argparse.ArgumentParser(prog="python -m flows.deployments", description=__doc__)
    parser.add_argument("--pool", default="aot")
    parser.add_argument("--gpus", type=int, default=0)
    parser.add_argument("--schedule", default=FRIDAY_EVENING, metavar="CRON")
    parser.add_argument("--config", required=True)
    parser.add_argument("--home", required=True)
    parser.add_argument("--working-folder")
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="SECTION.FIELD=VALUE")
    parser.add_argument("--tell", dest="blocks", action="append", default=[], metavar="TYPE/NAME")
    given = parser.parse_args()
    return run_flow(given.home, lambda: _deploy(given))


def _deploy(given: argparse.Namespace) -> None:
    demand_cron(given.schedule)
    keep_own_server()
    try:
        _deploy_all(given)
    except httpx.ConnectError as error:
        asked = os.environ.get("PREFECT_API_URL") or "this home's address"
        raise ValueError(
            f"no Prefect server answers at {asked}; start this home's with `aot ui --home {given.home}`, or set "
            "PREFECT_API_URL to one that runs"
        ) from error


def _deploy_all(given: argparse.Namespace) -> None:
    overrides: list[str] = given.overrides
    if slots := make_slots(given.gpus):
        overrides = [*overrides, f"run.gpu_slots={json.dumps(slots)}"]
    chosen = schedules(given.config, given.home, overrides, given.schedule)
    deploy(chosen, given.pool, given.working_folder, given.blocks)
    for schedule in chosen:
        print(f"{schedule.name:18} {f'{schedule.cron} (UTC)' if schedule.cron else 'on demand'}")
    if not os.environ.get("PREFECT_API_URL"):
        place = f"--home {given.home}"
        print(f"Nothing starts until both of these run: aot ui {place}; aot worker --pool {given.pool} {place}")


if __name__ == "__main__":
    sys.exit(main())
