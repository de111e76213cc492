"""What `aot run --dry-run` says beside the resolved config: which stages would run, which the store holds.

A stage's key follows from the artifacts of the stages before it, so that nothing is known of what lies behind the first
one that has to run. What the store holds is told by the campaign's own summary; how long a stage will take, by the last
time that this home ran it.
"""

from aot_core.commands.progress import planned_stages, seconds_of, time_left
from aot_core.commands.status import read_summaries
from aot_core.contracts.campaign import CampaignConfig
from aot_core.contracts.summary import CampaignSummary, StageStep
from aot_core.home import Home
from aot_core.store import Store, open_store

_NO_PART = ("run", "source_folder", "benchmark_folder", "promotion")
"""What may differ between two runs of one campaign."""


def stages_told(config: CampaignConfig, home: Home) -> list[str]:
    """A line a stage: held, to be run, or unknown, and the seconds that it took last time; then the time in all.

    Raises StoreError where the store that the config names cannot be opened.
    """
    summaries, _ = read_summaries(home)
    known = seconds_of(summaries)
    mine = next((summary for summary in summaries if _same(summary, config)), None)
    done = list(mine.steps) if mine else []
    stages, held = planned_stages(config), True
    lines: list[str] = []
    left: list[tuple[int, str]] = []
    store = open_store(config.run.store or str(home.store), config.run.s3) if done else None
    for number, (round_index, stage) in enumerate(stages, start=1):
        step = _taken(done, round_index, stage)
        held = held and _stands(store, step)
        if not held:
            left.append((round_index, stage))
        last = f"{known[stage]:.1f} s last time" if stage in known else "never run on this home"
        where = f"round {round_index}" if round_index else "start"
        lines.append(f"{number:>2} of {len(stages)}  {'held' if held else 'runs':<5} {where:>8}  {stage}  ({last})")
    told = ", ".join(
        part for part in (f"{len(left)} of {len(stages)} stages would run", time_left(left, known)) if part
    )
    return [*lines, told]


def _taken(done: list[StageStep], round_index: int, stage: str) -> StageStep | None:
    """The first step of this round and stage, which is then used up."""
    found = next((step for step in done if (step.round, step.record.stage) == (round_index, stage)), None)
    if found is not None:
        done.remove(found)
    return found


def _stands(store: Store | None, step: StageStep | None) -> bool:
    return store is not None and step is not None and store.find(step.record.stage, step.record.key) is not None


def _same(summary: CampaignSummary, config: CampaignConfig) -> bool:
    mine = config.model_dump(mode="json")
    return all(summary.config.get(name) == value for name, value in mine.items() if name not in _NO_PART)
