"""The campaign: data, warm start, N rounds of Attacker against Defender, evaluation, registration.

Reads top to bottom like the paper (arXiv 2602.22227, phases 1 and 2). Started by `aot run`, or by a deployment.
"""

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from prefect import State, flow, tags

from aot_core.commands.handover import take
from aot_core.contracts.artifact import ArtifactRef, ExternalRef, StageRecord
from aot_core.contracts.attacker_round import AttackerRoundInputs
from aot_core.contracts.campaign import CampaignConfig
from aot_core.contracts.curate import CurateInputs
from aot_core.contracts.defender_round import DefenderRoundInputs
from aot_core.contracts.evaluate import EvaluateInputs
from aot_core.contracts.summary import CampaignSummary
from aot_core.contracts.warm_start_attacker import WarmStartAttackerInputs
from aot_core.contracts.warm_start_defender import WarmStartDefenderInputs
from aot_core.engine.runner import execute, find
from aot_core.home import Home, room_told
from aot_core.launch import open_launcher
from aot_core.tracking.database import told
from flows import tasks
from flows.campaign import OpenCampaign
from flows.closing import print_closing_table, write_campaign_report
from flows.course import Course, Ended
from flows.events import tell_budget, tell_failure, tell_jump
from flows.heartbeat import TAG
from flows.maintenance import take_over
from flows.own_server import interruptible, keep_own_server
from flows.promotion import gate_defender, settle
from flows.restarts import dated, tell_restart
from flows.secrets import lend_blocks
from flows.sentences import failed, run_flow, value_of
from flows.series import (
    BudgetSpentError,
    check_budget,
    choose_pool,
    edition_of,
    end_edition,
    keep_in_bank,
    look_for_drift,
    look_for_wrong_labels,
    one_at_a_time,
    sit_fixed_exam,
    tell_plan,
)
from flows.trend import show_trend


@flow(name="coevolution", flow_run_name="{config.name}", validate_parameters=False)
def coevolution(config: CampaignConfig, home: str) -> CampaignSummary | State[Any]:
    """Run a campaign to its end, reusing every stage that the store holds."""
    try:
        with told(), room_told(home):
            lend_blocks(config)
            campaign = OpenCampaign(config, Home(home))
            open_launcher(config.run, execute, find).check(campaign.any_place())
            with one_at_a_time(config, campaign.home):
                with campaign:
                    take_over(campaign.key, campaign.home)
                    tell_plan(campaign)
                    tell_restart(campaign)
                    ended = _coevolve(campaign)
                if ended is not None:
                    settle(campaign, ended.decision)
                    end_edition(campaign, ended)
                    show_trend(campaign)
            write_campaign_report(campaign)
    except Exception as error:
        tell_failure(config.name, config.edition, home, error)
        return failed(error, home)
    return campaign.summary


def _coevolve(campaign: OpenCampaign) -> Ended | None:
    """The campaign's stages and what came of them; None where the config stops before there is a Defender."""
    # Phase 1: the AOT-SFT data, and from it both players' warm start, unless a series goes on from earlier ones.
    data = tasks.prepare_data(campaign, campaign.data_inputs()).artifact
    if campaign.config.stop_after == "prepare_data":
        return None
    look_for_drift(campaign, data)
    course = _begin(campaign, data)
    look_for_wrong_labels(campaign, course)

    # Phase 2: co-evolution. In each round one player is frozen while the other learns.
    try:
        for k in range(1, campaign.config.rounds + 1):
            _play_round(campaign, course, k)
    except BudgetSpentError as spent:
        course.over_budget = str(spent)
        tell_budget(campaign, str(spent), course.played)
        campaign.warn(f"{spent}: the edition ends here, with what it has")
    _sit_exam(campaign, course, campaign.benchmarks)
    if campaign.config.crossplay == "pool":
        for k, later in unplayed(course.exam.attackers).items():
            if k < len(course.defenders):
                match = _match(course.exam, course.defenders[k], later)
                tasks.evaluate(campaign, match, k, label="crossplay-pool")
    return Ended(
        course,
        bank=keep_in_bank(campaign, course),
        exam=sit_fixed_exam(campaign, course),
        decision=gate_defender(campaign, course),
    )


def _begin(campaign: OpenCampaign, data: ArtifactRef) -> Course:
    """Both players as they are before the first round, and how the Defender does."""
    config, plan = campaign.config, campaign.config.edition
    made: ArtifactRef | None = None
    if plan is not None and plan.attacker is not None:
        attacker = plan.attacker
    elif config.attacker_start == "newest":
        attacker = max(campaign.adversaries(), key=lambda adversary: adversary.started_at).artifact
    else:
        warm_start = WarmStartAttackerInputs(dataset=data, base=campaign.attacker_base)
        attacker = made = tasks.warm_start_attacker(campaign, warm_start).artifact
    if plan is not None and plan.defender is not None:
        defender = plan.defender
    else:
        lesson = WarmStartDefenderInputs(dataset=data, base=campaign.defender_base)
        defender = tasks.warm_start_defender(campaign, lesson).artifact
    pool = choose_pool(campaign, data, defender)
    exam = EvaluateInputs(
        dataset=data,
        defender=defender,
        defender_base=campaign.defender_base,
        attacker_base=campaign.attacker_base,
        adversaries=tuple(adversary.artifact for adversary in pool),
        judge=campaign.judge(config.evaluate.validity),
        bank=plan.bank if plan else None,
    )
    evaluation = tasks.evaluate(campaign, exam)
    return Course(data, attacker, defender, pool, exam, evaluation, attacker, made, [defender], sat=[exam])


def _play_round(campaign: OpenCampaign, course: Course, k: int) -> None:
    """Round k: a new Attacker against the Defender so far, its edits curated, a new Defender taught by them.

    Raises BudgetSpentError after the stage that used an edition's budget up.
    """
    config, plan = campaign.config, campaign.config.edition
    check_budget(campaign)
    earlier = [*course.pool, *(step.record for step in campaign.summary.steps if step.record.stage == "attacker_round")]
    match = AttackerRoundInputs(
        dataset=course.data,
        attacker=course.first_attacker if config.attacker_rounds == "fresh" else course.attacker,
        defender=course.defender,
        attacker_base=campaign.attacker_base,
        defender_base=campaign.defender_base,
        judge=campaign.judge(config.attacker_round.reward.validity),
    )
    attack = tasks.attacker_round(campaign, match, k)
    tell_jump(campaign, earlier, attack, k)
    course.attacker = attack.artifact
    course.exam = course.exam.model_copy(update={"attackers": (*course.exam.attackers, course.attacker)})
    check_budget(campaign)
    if config.crossplay:
        # What the new Attacker does to the Defender that it was trained against, before that one learns from it.
        match_of_both = _match(course.exam, course.defender, {k: course.attacker})
        tasks.evaluate(campaign, match_of_both, k - 1, label="crossplay")
    judge = campaign.judge(config.curate.validity)
    fresh = CurateInputs(**{**dict(match), "attacker": course.attacker, "judge": judge})
    if config.curate.draw != "newest":
        course.pool = [*course.pool, attack]
        met = {"pool": tuple(a.artifact for a in course.pool[:-1]), "successes": tuple(successes(course.pool))}
        fresh = fresh.model_copy(update=met)
    if config.curate.replay is not None:
        fresh = fresh.model_copy(update={"earlier": tuple(course.curated)})
    curated = tasks.curate(campaign, fresh, k).artifact
    course.curated.append(curated)
    check_budget(campaign)
    lesson = DefenderRoundInputs(
        curated=curated, defender=course.defender, base=campaign.defender_base, bank=plan.bank if plan else None
    )
    course.defender = tasks.defender_round(campaign, lesson, k).artifact
    course.defenders.append(course.defender)
    course.exam = course.exam.model_copy(update={"defender": course.defender})
    course.played = k
    if k < config.rounds:
        _sit_exam(campaign, course, None)


def _sit_exam(campaign: OpenCampaign, course: Course, benchmarks: ExternalRef | None) -> None:
    """Evaluate the Defender so far against every Attacker so far; the last time on the public benchmarks, too."""
    course.exam = course.exam.model_copy(update={"benchmark_folder": benchmarks})
    if course.exam not in course.sat:
        course.evaluation = tasks.evaluate(campaign, course.exam, course.played)
        course.sat.append(course.exam)


def unplayed(attackers: Sequence[ArtifactRef]) -> dict[int, dict[int, ArtifactRef]]:
    """The rest of the cross-play matrix: for each Defender k the Attackers (by round) that it has not met. It was asked
    about Attackers 1 to k when it was evaluated, and about k + 1 when that one was new."""
    return {k: dict(enumerate(attackers[k + 1 :], start=k + 2)) for k in range(len(attackers) - 1)}


def successes(attackers: Iterable[StageRecord]) -> Iterator[float]:
    """The share of successful edits that each Attacker ended its round with."""
    return (float(record.outputs["success_after"]) for record in attackers)


def _match(exam: EvaluateInputs, defender: ArtifactRef, attackers: Mapping[int, ArtifactRef]) -> EvaluateInputs:
    """A Defender against the Attackers of these rounds, and against nothing else."""
    players = {"defender": defender, "attackers": tuple(attackers.values()), "numbers": tuple(attackers)}
    return exam.model_copy(
        update={**players, "families": False, "adversaries": (), "benchmark_folder": None, "bank": None}
    )


def main() -> int:
    """`python -m flows.coevolution HOME CONFIG_FILE [EDITION]`; the environment is already set (see `aot run`). The
    file is removed once it is read."""
    keep_own_server()
    home, handed_over, *asked = sys.argv[1:]

    def run() -> None:
        config = take(Path(handed_over))
        if asked:
            lend_blocks(config)
            config = edition_of(config, Home(home), asked[0])
        config = dated(config, Home(home))
        with interruptible("`aot run` resumes where it stopped"), tags(TAG):
            state = coevolution(config, home, return_state=True)
        print_closing_table(value_of(state), Home(home))

    return run_flow(home, run)


if __name__ == "__main__":
    sys.exit(main())
