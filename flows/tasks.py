"""Stage -> Prefect task: name, cache key, retries. One name in four places: `tasks.x` runs `stages/x`.

Prefect's cache key is the stage's key, and Prefect's cache is believed only while the store still holds the result:
the store is the truth. What travels through Prefect is the spec and the record: references and numbers.
"""

from collections.abc import Callable
from typing import Any, cast

from prefect import State, task
from prefect.context import TagsContext, TaskRunContext
from prefect.states import Failed

from aot_core.contracts.artifact import StageName, StageRecord
from aot_core.contracts.base import Frozen
from aot_core.contracts.campaign import RunSettings
from aot_core.contracts.errors import StageCrashedError, StageError
from aot_core.contracts.spec import StageResult, StageSpec
from aot_core.engine.identity import declaration, stage_spec
from aot_core.engine.runner import execute, find
from aot_core.launch import open_launcher
from flows.campaign import OpenCampaign
from flows.cancellation import watch_this_run
from flows.slots import gpu_slot


def _stage_key(_context: TaskRunContext, parameters: dict[str, Any]) -> str:
    return parameters["spec"].key


def _may_help_to_retry(_task: Any, _run: Any, state: State[Any]) -> bool:
    """Only a crash is worth another try: bad input stays bad, and a full memory full."""
    return isinstance(state.result(raise_on_failure=False), StageCrashedError)


@task(
    cache_key_fn=_stage_key,
    persist_result=True,
    result_serializer="json",
    retry_condition_fn=_may_help_to_retry,
    retry_delay_seconds=5,
)
def run_stage(spec: StageSpec, settings: RunSettings) -> StageResult | State[Any]:
    """Run one stage through a launcher, or take what the store holds.

    People's mistakes fail the task with their words alone; a crash keeps its traceback.
    """
    cancelled = watch_this_run()
    try:
        with gpu_slot(settings.gpu_slots, cancelled) as gpu:
            here = spec.model_copy(update={"place": spec.place.model_copy(update={"gpu": gpu})})
            return open_launcher(settings, execute, find, cancelled).run(here)
    except StageCrashedError:
        raise
    except StageError as error:
        return Failed(message=str(error), data=error)


def spec_of(
    campaign: OpenCampaign,
    name: StageName,
    inputs: Frozen,
    round_index: int = 0,
    *,
    recorded: bool = True,
    of_series: bool = False,
) -> StageSpec:
    """The spec of a stage in a round of a campaign."""
    # Every evaluation draws the same questions and noise: rounds differ by the players alone.
    seeded_by = 0 if declaration(name).same_in_all_rounds else round_index
    config = campaign.config.stage_config(name, seeded_by, of_series=of_series)
    restart = campaign.config.restart
    remade = restart.asked_at if restart is not None and restart.covers(name, round_index) else ""
    return stage_spec(name, config, inputs, campaign.place(round_index, tracked=recorded), remade)


def _stage(name: StageName) -> Callable[..., StageRecord]:
    def run(
        campaign: OpenCampaign,
        inputs: Frozen,
        round_index: int = 0,
        *,
        recorded: bool = True,
        label: str = "",
        of_series: bool = False,
    ) -> StageRecord:
        settings = campaign.config.run
        spec = spec_of(campaign, name, inputs, round_index, recorded=recorded, of_series=of_series)
        held = campaign.store.find(name, spec.key)
        # Without the flow run's tags: Prefect asks its server for a slot of each tag's limit, and a task whose request
        # meets a server that is just being restarted fails.
        shown = campaign.stage(name, round_index, spec.key, held is not None, numbered=recorded)
        with shown, TagsContext(current_tags=set()):
            state = run_stage.with_options(
                name=name,
                task_run_name=f"{label or name} {round_index}" if round_index else label or name,
                retries=settings.retries,
                refresh_cache=held is None,
            )(spec, settings, return_state=True)
            result = cast("StageResult", state.result())
        record = held or result.record
        assert record is not None, "a launcher returns a record or raises"
        if recorded:
            campaign.note(record, round_index, reused=held is not None, label=label)
        return record

    run.__name__ = run.__qualname__ = name
    run.__doc__ = (
        f"Run the stage `{name}` in a round of a campaign (see `aot_core.stages.{name}`); unless `recorded`, leave "
        "the campaign's summary and its MLflow runs alone. `label` names the task, and its figures in MLflow, instead "
        "of the stage. `of_series` takes the seed that all editions of a series share."
    )
    return run


prepare_data = _stage("prepare_data")
warm_start_attacker = _stage("warm_start_attacker")
warm_start_defender = _stage("warm_start_defender")
attacker_round = _stage("attacker_round")
curate = _stage("curate")
bank = _stage("bank")
compare_data = _stage("compare_data")
defender_round = _stage("defender_round")
evaluate = _stage("evaluate")
