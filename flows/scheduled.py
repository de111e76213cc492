"""What a deployment's schedule starts: parameters that fit into JSON, everything secret from the worker's environment.

Run by a Prefect worker (`aot worker`) in a process of its own; `flows/deployments.py` says when.
"""

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout
from prefect import State, flow, get_run_logger
from prefect.runtime import flow_run
from prefect.states import Completed, Failed

from aot_core.commands.housekeeping import collect_garbage, is_running
from aot_core.commands.places import demand_functions
from aot_core.contracts.campaign import CampaignConfig, RunSettings
from aot_core.contracts.loading import load_campaign
from aot_core.contracts.spec import Place, TrackingTarget
from aot_core.contracts.summary import CampaignSummary
from aot_core.contracts.terminal import counted
from aot_core.home import Home
from aot_core.promotion import commands
from aot_core.promotion.leaders import discrepancy
from aot_core.series.book import SeriesBook
from aot_core.series.planning import SeriesError, number_of, unfinished
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

if TYPE_CHECKING:
    from aot_core.commands.reevaluation import Reevaluation

_OVERDUE = timedelta(hours=1)
"""An edition that was planned so long ago, and that nobody runs or has finished, is told of."""
_LONGEST_HOURS = 168.0
"""Of a re-evaluation whose campaign sets no `run.stage_hours`: the next one is due."""
_REAP_SECONDS = 1800.0
"""A container whose campaign's process died is left alone for so long: a restart would take its result over."""


def _at(home: str) -> Home:
    """The home, its folders made; this process's environment is set as `aot` sets it."""
    place = Home(home)
    place.create()
    os.environ.update(place.environment())
    return place


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

    The edition is identified by the run's scheduled start, never by the clock: a run that is late, retried or restarted
    is the same edition, and the next slot is the next one.

    Args:
        edition: one to run instead, as `aot run --edition` takes it.
    """
    try:
        place = _at(home)
        campaign = resolve(config, overrides)
        if campaign.series is None:
            return coevolution.fn(campaign, str(place.root))
        lend_blocks(campaign)
        demand_functions(campaign)
        asked = edition or _slot()
        # First the earlier ones, then the plan of this one: it begins from where they end.
        for number in _unfinished(campaign, place, asked):
            ended = _resume(campaign, place, number)
            if ended is not None and ended.is_cancelled():
                return ended  # whoever cancelled this run meant all of it
        return coevolution.fn(edition_of(campaign, place, asked), str(place.root))
    except Exception as error:
        tell_failure(Path(config).stem, None, home, error)
        return failed(error, home)


def _unfinished(campaign: CampaignConfig, place: Home, asked: str) -> list[int]:
    """The numbers of the earlier editions that are to be finished first."""
    series = campaign.series
    if series is None or series.unfinished == "leave":
        return []
    book = SeriesBook(open_store(campaign.run.store or str(place.store), campaign.run.s3), series.name)
    return [plan.number for plan in unfinished(book, number_of(book, asked))]


def _resume(campaign: CampaignConfig, place: Home, number: int) -> State[Any] | None:
    """Run an unfinished edition to its end; returns how it failed. That does not keep the next one from running: its
    own summary and this run's log say so."""
    try:
        ended = coevolution.fn(edition_of(campaign, place, str(number)), str(place.root))
    except SeriesError as error:
        get_run_logger().warning("edition %d cannot be resumed: %s", number, error)
        return None
    return ended if isinstance(ended, State) else None


def _slot() -> str:
    """The scheduled start of this flow run, which a retry and a restart keep."""
    return flow_run.get_scheduled_start_time().isoformat()


@flow(name="reevaluation")
def reevaluation(config: str, overrides: list[str], home: str) -> State[Any]:
    """Evaluate the champion again. Fails if a single answer differs from the one that it was promoted by: because of a
    changed library, another machine, or changed weights."""
    try:
        place, campaign = _at(home), resolve(config, overrides)
        with gpu_slot(campaign.run.gpu_slots, watch_this_run()):
            found = _reevaluated(place, campaign.promotion.model, campaign.run)
    except Exception as error:
        return failed(error, home)
    if not found.same:
        tell_changed(campaign.promotion.model, found.told())
    return (Completed if found.same else Failed)(message=found.told())


def _reevaluated(home: Home, model: str, settings: RunSettings) -> "Reevaluation":
    """With the docker launcher in a container: the worker's image has no torch."""
    place = Place(
        store=settings.store or str(home.store),
        s3=settings.s3,
        device=settings.device,
        threads=settings.threads,
        tracking=TrackingTarget(uri=home.mlflow_uri, run_id=""),
        home=str(home.root),
    )
    if settings.launcher == "docker":
        from aot_core.commands.reevaluation_errand import reevaluate_in_container

        seconds = 3600 * (settings.stage_hours or _LONGEST_HOURS)
        return reevaluate_in_container(home.mlflow_uri, model, registry.CHAMPION, place, settings.docker, seconds)
    from aot_core.commands.reevaluation import reevaluate

    store = open_store(place.store, place.s3)
    say = get_run_logger().info
    return reevaluate(home.mlflow_uri, model, registry.CHAMPION, store, place.device, place.threads, say)


@flow(name="evaluate-champion", flow_run_name="{config}")
def evaluate_champion(config: str, overrides: list[str], home: str, newest: int) -> State[Any]:
    """The model that leads against the newest Attackers of the store (`flows.champion`)."""
    try:
        place = _at(home)
        return Completed(message=measure_champion(resolve(config, overrides), place, newest))
    except Exception as error:
        return failed(error, home)


@flow(name="promotion")
def promotion(config: str, overrides: list[str], home: str, version: str | None, why: str) -> State[Any]:
    """`aot promote` from Prefect's pages: the challenger, or the version that is named, if it passed the gate."""
    try:
        place, campaign = _at(home), resolve(config, overrides)
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
        place, campaign = _at(home), resolve(config, overrides)
        settings = campaign.run
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
    """Tidy up; returns a description of what was done."""
    crashed = crash_silent_runs(place, lambda key: is_running(place, key))
    done = [f"{counted(len(crashed), 'run')} marked Crashed"]
    if settings.launcher == "docker":
        from aot_core.launch.leftovers import reap

        reaped = reap(str(place.root), lambda key: is_running(place, key), _REAP_SECONDS)
        done.append(f"{counted(len(reaped), 'container')} reaped")
    store = open_store(settings.store or str(place.store), settings.s3)
    unreached = collect_garbage(place, store, keep_days, delete=delete)
    done.append(f"{counted(unreached, 'stage')} {'deleted' if delete else 'not reached'}")
    return ", ".join(done)
