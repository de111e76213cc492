"""The campaign: data, warm start, N rounds of Attacker against Defender, evaluation, registration.

Reads top to bottom like the paper (arXiv 2602.22227, phases 1 and 2). Started by `aot run`, or by a deployment.
"""

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from prefect import State, flow

from aot_core.commands.handover import take
from aot_core.contracts.artifact import ArtifactRef, StageRecord
from aot_core.contracts.attacker_round import AttackerRoundInputs
from aot_core.contracts.campaign import CampaignConfig
from aot_core.contracts.curate import CurateInputs
from aot_core.contracts.defender_round import DefenderRoundInputs
from aot_core.contracts.evaluate import EvaluateInputs
from aot_core.contracts.promotion import Decision
from aot_core.contracts.summary import CampaignSummary
from aot_core.contracts.warm_start_attacker import WarmStartAttackerInputs
from aot_core.contracts.warm_start_defender import WarmStartDefenderInputs
from aot_core.home import Home
from aot_core.launch import open_launcher
from aot_core.stages.runner import execute, find
from flows import tasks
from flows.campaign import OpenCampaign
from flows.closing import print_closing_table, write_campaign_report
from flows.maintenance import take_over
from flows.own_server import keep_own_server
from flows.promotion import judge_defender, settle
from flows.secrets import lend_blocks
from flows.sentences import failed, run_flow, value_of


@flow(name="coevolution", flow_run_name="{config.name}", validate_parameters=False)
def coevolution(config: CampaignConfig, home: str) -> CampaignSummary | State[Any]:
    """Run a campaign to its end, reusing every stage that the store holds."""
    try:
        lend_blocks(config)
        campaign = OpenCampaign(config, Home(home))
        open_launcher(config.run, execute, find).check(campaign.any_place())
        with campaign:
            take_over(campaign.key)
            decision = _coevolve(campaign)
        if decision is not None:
            settle(campaign, decision)
        write_campaign_report(campaign)
    except Exception as error:
        return failed(error, home)
    return campaign.summary


def _coevolve(campaign: OpenCampaign) -> Decision | None:
    """The campaign's stages, and the gate's decision about the Defender that came of them, where one did."""
    attacker_base, defender_base = campaign.attacker_base, campaign.defender_base

    # Phase 1: the AOT-SFT data, and from it both players' warm start.
    data = tasks.prepare_data(campaign, campaign.data_inputs()).artifact
    if campaign.config.stop_after == "prepare_data":
        return None
    pool = campaign.adversaries()
    if campaign.config.attacker_start == "newest":
        attacker = max(pool, key=lambda adversary: adversary.started_at).artifact
    else:
        warm_start = WarmStartAttackerInputs(dataset=data, base=attacker_base)
        attacker = tasks.warm_start_attacker(campaign, warm_start).artifact
    defender = tasks.warm_start_defender(campaign, WarmStartDefenderInputs(dataset=data, base=defender_base)).artifact
    exam = EvaluateInputs(
        dataset=data,
        defender=defender,
        defender_base=defender_base,
        attacker_base=attacker_base,
        adversaries=tuple(adversary.artifact for adversary in pool),
        judge=campaign.judge(campaign.config.evaluate.validity),
    )
    tasks.evaluate(campaign, exam)

    # Phase 2: co-evolution. In each round one player is frozen while the other learns.
    defenders = [defender]
    for k in range(1, campaign.config.rounds + 1):
        match = AttackerRoundInputs(
            dataset=data,
            attacker=attacker,
            defender=defender,
            attacker_base=attacker_base,
            defender_base=defender_base,
            judge=campaign.judge(campaign.config.attacker_round.reward.validity),
        )
        attack = tasks.attacker_round(campaign, match, k)
        attacker = attack.artifact
        if campaign.config.crossplay:
            # What the new Attacker does to the Defender that it was trained against, before that one learns from it.
            tasks.evaluate(campaign, _match(exam, defender, {k: attacker}), k - 1, label="crossplay")
        judge = campaign.judge(campaign.config.curate.validity)
        fresh = CurateInputs(**{**dict(match), "attacker": attacker, "judge": judge})
        if campaign.config.curate.draw != "newest":
            pool = [*pool, attack]
            met = {"pool": tuple(a.artifact for a in pool[:-1]), "successes": tuple(successes(pool))}
            fresh = fresh.model_copy(update=met)
        curated = tasks.curate(campaign, fresh, k).artifact
        lesson = DefenderRoundInputs(curated=curated, defender=defender, base=defender_base)
        defender = tasks.defender_round(campaign, lesson, k).artifact
        defenders.append(defender)
        exam = exam.model_copy(update={"defender": defender, "attackers": (*exam.attackers, attacker)})
        if k == campaign.config.rounds:
            exam = exam.model_copy(update={"benchmark_folder": campaign.benchmarks})
        tasks.evaluate(campaign, exam, k)

    if campaign.config.crossplay == "pool":
        for k, later in unplayed(exam.attackers).items():
            tasks.evaluate(campaign, _match(exam, defenders[k], later), k, label="crossplay-pool")
    return judge_defender(campaign, defender, exam)


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
    return exam.model_copy(update={**players, "families": False, "adversaries": (), "benchmark_folder": None})


def main() -> int:
    """`python -m flows.coevolution HOME CONFIG_FILE`; the environment is already set (see `aot run`). The file is
    removed once it is read."""
    keep_own_server()
    home, handed_over = sys.argv[1:]

    def run() -> None:
        state = coevolution(take(Path(handed_over)), home, return_state=True)
        print_closing_table(value_of(state), Home(home))

    return run_flow(home, run)


if __name__ == "__main__":
    sys.exit(main())
