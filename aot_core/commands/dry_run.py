"""What `aot run --dry-run` says beside the resolved config: which stages would run, which the store holds.

A stage's key follows from the artifacts of the stages before it, so nothing is known about the stages after the first
one that has to run. What the store holds is read from the campaign's own summary; how long a stage will take, from the
last time that this home ran it. Of a series, the edition is planned as the run would plan it, and not entered into the
book.
"""

import os
from pathlib import Path

from aot_core.commands.looking import existing_store
from aot_core.commands.progress import Durations, Slot, planned_stages, slots, time_left
from aot_core.commands.status import read_summaries
from aot_core.contracts.campaign import CampaignConfig
from aot_core.contracts.restart import Restart
from aot_core.contracts.series import EditionPlan
from aot_core.contracts.summary import CampaignSummary, StageStep
from aot_core.home import Home
from aot_core.store import Store, open_store

_NO_PART = ("run", "source_folder", "benchmark_folder", "promotion", "restart")
"""What may differ between two runs of one campaign, or is looked at apart."""


def stages_told(config: CampaignConfig, home: Home, edition: str | None = None) -> list[str]:
    """A line a stage: reused, to be run, or unknown, and the seconds that it took last time; then the time in all.

    Args:
        edition: of a series, as `aot run --edition` takes it.

    Raises StoreError where the store that the config names cannot be opened, and SeriesError where the edition cannot
    be planned.
    """
    config = _with_edition(config, home, edition)
    summaries, _ = read_summaries(home)
    durations = Durations(summaries, config.name)
    mine, restart = _earlier_run(summaries, config)
    done = list(mine.steps) if mine else []
    stages, reused = slots(planned_stages(config)), True
    lines, left = _edition_told(config.edition), list[Slot]()
    store = open_store(config.run.store or str(home.store), config.run.s3) if done else None
    for number, slot in enumerate(stages, start=1):
        step = _taken(done, slot)
        anew = step is not None and restart is not None and restart.covers(step.record.stage, slot.round)
        reused = reused and not anew and _stands(store, step)
        if not reused:
            left.append(slot)
        seconds = durations.of(slot)
        last = "never run on this home" if seconds is None else f"{seconds:.1f} s last time"
        where = f"round {slot.round}" if slot.round else "start"
        verb = "reused" if reused else "runs"
        lines.append(f"{number:>2} of {len(stages)}  {verb:<6} {where:>8}  {slot.stage}  ({last})")
    told = ", ".join(
        part for part in (f"{len(left)} of {len(stages)} stages would run", time_left(left, durations)) if part
    )
    return [*lines, told]


def _with_edition(config: CampaignConfig, home: Home, asked: str | None) -> CampaignConfig:
    """The config with the plan of the edition that would run; nothing is created where there is no home yet."""
    if config.series is None or asked is None:
        return config
    uri, database = home.mlflow_uri, home.mlflow_folder / "mlflow.db"
    store_uri = config.run.store or str(home.store)
    nothing = "://" not in store_uri and not Path(store_uri).is_dir()
    if nothing or (uri.startswith("sqlite:") and not database.is_file()):
        first = EditionPlan(series=config.series.name, number=1, seed=config.seed, lineage=(config.models.defender,))
        return config.model_copy(update={"edition": first})
    os.environ.update(home.environment())
    from aot_core.engine.identity import pin_model, pin_source
    from aot_core.series.planning import Surroundings, preview_edition  # imports MLflow, which takes two seconds

    where = Surroundings(
        store=existing_store(home, config.run.store, config.run.s3),
        mlflow_uri=uri,
        attacker_base=pin_model(config.models.attacker),
        defender_base=pin_model(config.models.defender),
        source=pin_source(config.source_folder),
    )
    return preview_edition(config, asked, where)


def _edition_told(plan: EditionPlan | None) -> list[str]:
    if plan is None:
        return []
    return [f"series {plan.series}, edition {plan.number}, from {plan.lineage[0]}", *plan.told]


def _earlier_run(
    summaries: list[CampaignSummary], config: CampaignConfig
) -> tuple[CampaignSummary | None, Restart | None]:
    """The last run of this campaign, and from where on it is rerun; an unfinished restart is continued."""
    known = [summary for summary in reversed(summaries) if _same(summary, config)]
    asked = config.restart
    begun = [summary for summary in known if summary.status != "finished" and _restarts(summary, asked)]
    if asked is not None and begun:
        return begun[0], None
    plain = [summary for summary in known if _restarts(summary, None)]
    return (plain[0] if plain else None), asked


def _restarts(summary: CampaignSummary, asked: Restart | None) -> bool:
    """Whether the campaign is a restart from the stage asked for; None: whether it is none."""
    told = summary.config.get("restart")
    if told is None or asked is None:
        return told is None and asked is None
    return (told["stage"], told["round"]) == (asked.stage, asked.round)


def _taken(done: list[StageStep], slot: Slot) -> StageStep | None:
    """The first step of this round and stage, which is then used up."""
    found = next((step for step in done if (step.round, step.record.stage) == (slot.round, slot.stage)), None)
    if found is not None:
        done.remove(found)
    return found


def _stands(store: Store | None, step: StageStep | None) -> bool:
    return store is not None and step is not None and store.find(step.record.stage, step.record.key) is not None


def _same(summary: CampaignSummary, config: CampaignConfig) -> bool:
    mine = config.model_dump(mode="json")
    return all(summary.config.get(name) == value for name, value in mine.items() if name not in _NO_PART)
