"""What a campaign says on the terminal while it runs: which stage of how many, the clock, its outcome, the rest."""

from collections.abc import Mapping
from datetime import datetime

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


def seconds_of(summaries: list[CampaignSummary]) -> dict[str, float]:
    """Stage to the seconds that its last run on this home took."""
    steps = [step for summary in summaries for step in summary.steps]
    return {step.record.stage: step.record.seconds for step in sorted(steps, key=lambda step: step.record.started_at)}


def time_left(left: list[tuple[int, str]], known: Mapping[str, float]) -> str:
    """How long the stages to come took last time; "" where one of them has never run here."""
    if not left or any(stage not in known for _, stage in left):
        return ""
    minutes = sum(known[stage] for _, stage in left) / 60
    return f"about {minutes:.0f} min left" if minutes >= 1 else "less than a minute left"


def clock() -> str:
    """The local time of day."""
    return f"{datetime.now():%H:%M:%S}"
