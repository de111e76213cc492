"""What a campaign prints while it runs: the stage and their number, the time, its outcome, the time left."""

from collections import Counter
from collections.abc import Iterable
from datetime import datetime
from typing import NamedTuple

from aot_core.contracts.artifact import StageRecord
from aot_core.contracts.campaign import CampaignConfig
from aot_core.contracts.summary import CampaignSummary

_ROUND = ("attacker_round", "curate", "defender_round", "evaluate")


def planned_stages(config: CampaignConfig) -> list[tuple[int, str]]:
    """(round, stage) of everything that a campaign notes, in order; a budget may end it earlier.

    Cross-play's evaluations count to the round whose Defender they ask.
    """
    if config.stop_after == "prepare_data":
        return [(0, "prepare_data")]
    plan = config.edition
    stages = [(0, "prepare_data")]
    series = config.series
    if plan is not None and series is not None and plan.reference is not None and series.on_drift != "ignore":
        stages.append((0, "compare_data"))
    if (plan is None or plan.attacker is None) and config.attacker_start != "newest":
        stages.append((0, "warm_start_attacker"))
    if plan is None or plan.defender is None:
        stages.append((0, "warm_start_defender"))
    stages.append((0, "evaluate"))
    for k in range(1, config.rounds + 1):
        stages.append((k, "attacker_round"))
        if config.crossplay:
            stages.append((k - 1, "evaluate"))
        stages += [(k, stage) for stage in _ROUND[1:]]
    if config.crossplay == "pool":
        stages += [(k, "evaluate") for k in range(config.rounds - 1)]
    if plan is not None and series is not None and series.bank and config.rounds:
        stages.append((config.rounds, "bank"))
    return stages


def outcome(record: StageRecord) -> str:
    """A finished stage in a few words; "" where its figures are shown at the end."""
    outputs = record.outputs
    if record.stage == "attacker_round":
        return f"success {100 * outputs['success_after']:.1f} %"
    if record.stage == "curate":
        return f"{outputs['kept']} of {outputs['edited']} edits kept"
    if record.stage == "defender_round":
        return f"reward {outputs['first_reward']:.2f} to {outputs['last_reward']:.2f}"
    if record.stage == "evaluate":
        return f"clean {100 * outputs['strict']['clean']:.1f} %, worst case {100 * outputs['worst']:.1f} %"
    if record.stage == "prepare_data":
        return f"{outputs['pairs']} pairs"
    return ""


class Slot(NamedTuple):
    """One stage of a campaign."""

    round: int
    stage: str
    number: int
    """0-based: which of the stages of this name in this round; cross-play evaluates twice."""


def slots(stages: Iterable[tuple[int, str]]) -> list[Slot]:
    """(round, stage) in order, each with its number."""
    seen: Counter[tuple[int, str]] = Counter()
    found: list[Slot] = []
    for round_index, stage in stages:
        found.append(Slot(round_index, stage, seen[round_index, stage]))
        seen[round_index, stage] += 1
    return found


class Durations:
    """How long each stage took when this home last ran it.

    The first evaluation meets no trained Attacker and the last one meets all of them, so that a stage's own round
    counts; a round that this home has never run takes as long as the last run of that stage.
    """

    def __init__(self, summaries: Iterable[CampaignSummary], name: str) -> None:
        """
        Args:
            name: the campaign's; where there are earlier ones of this name, they count before all others.
        """
        self._by_slot: dict[Slot, float] = {}
        self._by_stage: dict[str, float] = {}
        found: list[tuple[bool, str, Slot, float]] = []
        for summary in summaries:
            steps = zip(slots((step.round, step.record.stage) for step in summary.steps), summary.steps, strict=True)
            found += [(summary.name == name, s.record.started_at, slot, s.record.seconds) for slot, s in steps]
        for _, _, slot, seconds in sorted(found):
            self._by_slot[slot] = self._by_stage[slot.stage] = seconds

    def took(self, stage: str, seconds: float) -> None:
        """Note how long a stage has just taken."""
        self._by_stage[stage] = seconds

    def of(self, slot: Slot) -> float | None:
        """Seconds; None where this home has never run such a stage."""
        return self._by_slot.get(slot, self._by_stage.get(slot.stage))


def time_left(left: Iterable[Slot], durations: Durations) -> str:
    """How long the stages to come took last time; "" where there is none, or one of them has never run here."""
    known = [durations.of(slot) for slot in left]
    seconds = [one for one in known if one is not None]
    if not known or len(seconds) < len(known):
        return ""
    minutes = sum(seconds) / 60
    return f"about {minutes:.0f} min left" if minutes >= 1 else "less than a minute left"


def clock() -> str:
    """The local time of day."""
    return f"{datetime.now():%H:%M:%S}"
