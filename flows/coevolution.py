"""The campaign: data, warm start, N rounds of Attacker against Defender, evaluation, registration.

Reads top to bottom like the paper (arXiv 2602.22227, phases 1 and 2). Started by `aot run`, or by a deployment.
"""

import sys
from typing import Any

from prefect import State, flow
from prefect.states import Failed
from rich.console import Console

from aot_core.contracts.attacker_round import AttackerRoundInputs
from aot_core.contracts.campaign import CampaignConfig
from aot_core.contracts.curate import CurateInputs
from aot_core.contracts.defender_round import DefenderRoundInputs
from aot_core.contracts.errors import StageError
from aot_core.contracts.evaluate import EvaluateInputs
from aot_core.contracts.prepare_data import PrepareDataInputs
from aot_core.contracts.summary import CampaignSummary
from aot_core.contracts.warm_start_attacker import WarmStartAttackerInputs
from aot_core.contracts.warm_start_defender import WarmStartDefenderInputs
from aot_core.home import Home
from flows import tasks
from flows.campaign import CampaignBusyError, OpenCampaign
from flows.closing import print_closing_table, write_campaign_report
from flows.maintenance import take_over
from flows.promotion import register_defender


@flow(name="coevolution", flow_run_name="{config.name}", validate_parameters=False)
def coevolution(config: CampaignConfig, home: str) -> CampaignSummary | State[Any]:
    """Run a campaign to its end, reusing every stage that the store holds."""
    try:
        with OpenCampaign(config, Home(home)) as campaign:
            take_over(campaign.key)
            _coevolve(campaign)
        write_campaign_report(campaign)
    except (StageError, CampaignBusyError) as error:
        return Failed(message=str(error), data=error)
    return campaign.summary


def _coevolve(campaign: OpenCampaign) -> None:
    attacker_base, defender_base = campaign.attacker_base, campaign.defender_base

    # Phase 1: the AOT-SFT data, and from it both players' warm start.
    judge = defender_base if campaign.config.prepare_data.effectiveness.enabled else None
    data = tasks.prepare_data(campaign, PrepareDataInputs(source=campaign.source, defender=judge)).artifact
    if campaign.config.stop_after == "prepare_data":
        return
    attacker = tasks.warm_start_attacker(campaign, WarmStartAttackerInputs(dataset=data, base=attacker_base)).artifact
    defender = tasks.warm_start_defender(campaign, WarmStartDefenderInputs(dataset=data, base=defender_base)).artifact
    exam = EvaluateInputs(dataset=data, defender=defender, defender_base=defender_base, attacker_base=attacker_base)
    tasks.evaluate(campaign, exam)

    # Phase 2: co-evolution. In each round one player is frozen while the other learns.
    for k in range(1, campaign.config.rounds + 1):
        match = AttackerRoundInputs(
            dataset=data,
            attacker=attacker,
            defender=defender,
            attacker_base=attacker_base,
            defender_base=defender_base,
        )
        attacker = tasks.attacker_round(campaign, match, k).artifact
        fresh = CurateInputs(**{**dict(match), "attacker": attacker})
        curated = tasks.curate(campaign, fresh, k).artifact
        lesson = DefenderRoundInputs(curated=curated, defender=defender, base=defender_base)
        defender = tasks.defender_round(campaign, lesson, k).artifact
        exam = exam.model_copy(update={"defender": defender, "attackers": (*exam.attackers, attacker)})
        tasks.evaluate(campaign, exam, k)

    register_defender(campaign, defender, exam)


def main() -> int:
    """`python -m flows.coevolution HOME CONFIG_JSON`; the environment is already set (see `aot run`)."""
    home, config_json = sys.argv[1:]
    config = CampaignConfig.model_validate_json(config_json)
    outcome = coevolution(config, home, return_state=True).result(raise_on_failure=False)
    if isinstance(outcome, CampaignSummary):
        print_closing_table(outcome, Home(home))
        return 0
    Console(stderr=True).print(str(outcome), style="red", highlight=False, markup=False)
    return outcome.exit_code if isinstance(outcome, StageError) else 2


if __name__ == "__main__":
    sys.exit(main())
