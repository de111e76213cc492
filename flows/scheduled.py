"""What a deployment's schedule starts: parameters that fit into JSON, everything secret from the worker's environment.

Run by a Prefect worker (`aot worker`) in a process of its own; `flows/deployments.py` says when.
"""

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from prefect import State, flow, get_run_logger
from prefect.runtime import flow_run
from prefect.states import Completed, Failed

from aot_core.commands.housekeeping import collect_garbage, is_running
from aot_core.commands.places import demand_functions
from aot_core.contracts.campaign import CampaignConfig, RunSettings
from aot_core.contracts.loading import load_campaign
from aot_core.contracts.series import EditionPlan
from aot_core.contracts.summary import CampaignSummary
from aot_core.home import Home
from aot_core.promotion import commands
from aot_core.promotion.leaders import discrepancy
from aot_core.series.book import SeriesBook
from aot_core.series.planning import unfinished
from aot_core.store import open_store
from aot_core.store.ledger import Ledger
from aot_core.tracking import registry
from flows.cancellation import watch_this_run
from flows.champion import measure_champion
from flows.coevolution import coevolution
from flows.events import tell_astray, tell_changed, tell_failure, tell_overdue
from flows.maintenance import crash_silent_runs
from flows.promotion import promoter
from flows.secrets import lend_blocks
from flows.sentences import failed
from flows.series import edition_of
from flows.slots import gpu_slot

_OVERDUE = timedelta(hours=1)
"""An edition that was planned so long ago, and that nobody runs or has finished, is told of."""
_REAP_SECONDS = 1800.0
"""A container whose campaign's process died is left alone for so long: a restart would take its result over."""


def resolve(config: str, overrides: list[str]) -> CampaignConfig:
    """A campaign's config, its Prefect blocks read; its store is the worker's `AOT_STORE` unless it names one.

    Raises ConfigError and SecretError.
    """
    campaign = load_campaign(Path(config), overrides)
    lend_blocks(campaign)
    if campaign.run.store is None and "AOT_STORE" in os.environ:
        run = campaign.run.model_copy(update={"store": os.environ["AOT_STORE"]})
        campaign = campaign.model_copy(update={"run": run})
    return campaign


@flow(name="scheduled-coevolution", flow_run_name="{config}")
def scheduled_coevolution(
    config: str, overrides: list[str], home: str, edition: str | None = None
) -> CampaignSummary | State[Any]:
    """A campaign from a config file, or the edition of its series that this run was scheduled for.

    The edition is told by the run's scheduled start, never by the clock: a run that is late, retried or restarted is
    the same edition, and the next slot is the next one.

    Args:
        edition: one to run instead, as `aot run --edition` takes it.
    """
    try:
        place = Home(home)
        place.create()
        os.environ.update(place.environment())
        campaign = resolve(config, overrides)
        if campaign.series is None:
            return coevolution.fn(campaign, str(place.root))
        lend_blocks(campaign)
        demand_functions(campaign)
        planned = edition_of(campaign, place, edition or _slot())
        for earlier in _unfinished(planned, place):
            # One that fails again is told in its own summary, and does not keep the next from running.
            coevolution.fn(campaign.model_copy(update={"edition": earlier}), str(place.root))
        return coevolution.fn(planned, str(place.root))
    except Exception as error:
        tell_failure(Path(config).stem, None, home, error)
        return failed(error, home)


def _unfinished(planned: CampaignConfig, place: Home) -> list[EditionPlan]:
    """The earlier editions that are to be finished first."""
    series, plan = planned.series, planned.edition
    if series is None or plan is None or series.unfinished == "leave":
        return []
    store = open_store(planned.run.store or str(place.store), planned.run.s3)
    return unfinished(SeriesBook(store, series.name), plan.number)


def _slot() -> str:
    """The scheduled start of this flow run, which a retry and a restart keep."""
    return flow_run.get_scheduled_start_time().isoformat()


@flow(name="reevaluation")
def reevaluation(config: str, overrides: list[str], home: str) -> State[Any]:
    """Ask the champion everything again. Fails where a single answer is not what it was when it was promoted: a changed
    library, another machine, weights that somebody touched."""
    try:
        place, campaign = Home(home), resolve(config, overrides)
        place.create()
        os.environ.update(place.environment())
        from aot_core.commands.reevaluation import reevaluate

        store = open_store(campaign.run.store or str(place.store), campaign.run.s3)
        settings = campaign.run
        with gpu_slot(settings.gpu_slots, watch_this_run()):
            found = reevaluate(
                place.mlflow_uri,
                campaign.promotion.model,
                registry.CHAMPION,
                store,
                settings.device,
                settings.threads,
                get_run_logger().info,
            )
    except Exception as error:
        return failed(error, home)
    if not found.same:
        tell_changed(campaign.promotion.model, found.told())
    return (Completed if found.same else Failed)(message=found.told())


@flow(name="evaluate-champion", flow_run_name="{config}")
def evaluate_champion(config: str, overrides: list[str], home: str, newest: int) -> State[Any]:
    """The model that leads against the newest Attackers of the store (`flows.champion`)."""
    try:
        place = Home(home)
        place.create()
        os.environ.update(place.environment())
        return Completed(message=measure_champion(resolve(config, overrides), place, newest))
    except Exception as error:
        return failed(error, home)


@flow(name="promotion")
def promotion(config: str, overrides: list[str], home: str, version: str | None, why: str) -> State[Any]:
    """`aot promote` from Prefect's pages: the challenger, or the version that is named, by the leave of its gate."""
    try:
        place, campaign = Home(home), resolve(config, overrides)
        place.create()
        os.environ.update(place.environment())
        store = open_store(campaign.run.store or str(place.store), campaign.run.s3)
        acting = promoter(place, campaign.promotion, store, campaign.run)
        return Completed(message=commands.promote(acting, version, why, force=False))
    except Exception as error:
        return failed(error, home)


@flow(name="maintenance")
def maintenance(config: str, overrides: list[str], home: str, keep_days: float, delete: bool) -> State[Any]:
    """Tidy up after processes that died: Prefect runs that no process runs, containers that nobody waits for, and what
    the store no longer needs. Fails where the alias is not where the ledger says."""
    try:
        campaign = resolve(config, overrides)
        place, settings = Home(home), campaign.run
        done = _tidied(place, settings, keep_days, delete)
        store = open_store(settings.store or str(place.store), settings.s3)
        if campaign.series is not None:
            _tell_overdue(SeriesBook(store, campaign.series.name), place)
        ledger = Ledger(store, campaign.promotion.model)
        astray = discrepancy(place.mlflow_uri, campaign.promotion.model, ledger.entries())
        if astray:
            tell_astray(campaign.promotion.model, astray)
        return Failed(message=f"{done}; {astray}") if astray else Completed(message=done)
    except Exception as error:
        return failed(error, home)


def _tell_overdue(book: SeriesBook, place: Home) -> None:
    """Tell of the editions that were planned long enough ago, have no end, and are run by no process of this home."""
    lock = FileLock(place.lock_file(f"series-{book.series}"), timeout=0)
    try:
        with lock:
            left = [edition for edition in book.editions() if edition.end is None]
    except Timeout:
        return  # an edition is being run, and the next one finishes what is left
    for edition in left:
        if datetime.now(UTC) - datetime.fromisoformat(edition.planned_at) > _OVERDUE:
            tell_overdue(edition.plan, edition.planned_at)


def _tidied(place: Home, settings: RunSettings, keep_days: float, delete: bool) -> str:
    """Tidy up; returns what was done, in words."""
    place.create()
    done = [f"{len(crash_silent_runs(lambda key: is_running(place, key)))} runs marked Crashed"]
    if settings.launcher == "docker":
        from aot_core.launch.leftovers import reap

        reaped = reap(str(place.root), lambda key: is_running(place, key), _REAP_SECONDS)
        done.append(f"{len(reaped)} containers reaped")
    store = settings.store or str(place.store)
    unreached = collect_garbage(place, store, settings.s3, keep_days, delete=delete)
    done.append(f"{unreached} stages {'deleted' if delete else 'not reached'}")
    return ", ".join(done)
