"""From a campaign's last Defender to the registry: register it, compare it with the champion, move the alias.

The champion is measured again on this campaign's questions and against this campaign's Attackers, so that the two
figures are of the same items; a champion whose weights this store does not hold is not dethroned.
"""

from aot_core.contracts.artifact import ArtifactRef
from aot_core.contracts.evaluate import EvaluateInputs, EvaluateOutputs
from aot_core.evaluation.gate import may_lead
from aot_core.store import StoreError, open_store
from aot_core.tracking import registry
from aot_core.tracking.mlflow_tracking import ARTIFACT_SHA_TAG, ARTIFACT_URI_TAG
from flows import tasks
from flows.campaign import OpenCampaign


def register_defender(campaign: OpenCampaign, defender: ArtifactRef, exam: EvaluateInputs) -> None:
    """Register the Defender; it becomes `champion` where the gate lets it lead, else `challenger`.

    Args:
        defender: the last round's artifact.
        exam: the inputs of its evaluation, which the champion is given too.
    """
    uri, model = campaign.home.mlflow_uri, campaign.config.promotion.model
    evaluation = campaign.summary.find("evaluate", campaign.config.rounds)
    assert evaluation is not None, "the last round ends with its evaluation"
    figures = EvaluateOutputs.model_validate(evaluation.outputs)
    version = registry.register_defender(
        uri,
        campaign.summary.mlflow_run_id,
        open_store(str(campaign.home.store)).fetch(defender),
        campaign.defender_base.name,
        defender.uri,
        defender.sha256,
        metrics={"worst": figures.worst, **{f"strict.{k}": v for k, v in figures.strict.items()}},
        tags={"aot.campaign": campaign.summary.name, "aot.campaign_key": campaign.key},
        name=model,
    )
    alias, reason = _alias(campaign, figures, exam, version)
    registry.set_alias(uri, alias, version, model)
    campaign.update(registered_version=version, aliases=(alias,), promotion_reason=reason)
    campaign.say(f"registered [bold]{model}[/] version {version} as [bold]{alias}[/]: {reason}")


def _alias(campaign: OpenCampaign, figures: EvaluateOutputs, exam: EvaluateInputs, version: str) -> tuple[str, str]:
    """The alias that a version has earned, and why."""
    settings = campaign.config.promotion
    champion = registry.get_champion(campaign.home.mlflow_uri, settings.model)
    if champion is None:
        return registry.CHAMPION, may_lead(figures.strict, None, settings.clean_margin)[1]
    number, tags = champion
    if number == version:
        return registry.CHAMPION, "it leads already"
    if tags.get(registry.BASE_TAG) != campaign.defender_base.name:
        return registry.CHALLENGER, f"champion {number} has another base model; compare the two by hand"
    rival = ArtifactRef(uri=tags[ARTIFACT_URI_TAG], sha256=tags[ARTIFACT_SHA_TAG])
    try:
        open_store(str(campaign.home.store)).fetch(rival)
    except StoreError:
        return registry.CHALLENGER, f"champion {number} is not in this store, so the two cannot be compared"
    campaign.say(f"measuring champion {number} on the same questions")
    exam = exam.model_copy(update={"defender": rival})
    record = tasks.evaluate(campaign, exam, campaign.config.rounds, recorded=False)
    rival_figures = EvaluateOutputs.model_validate(record.outputs)
    leads, reason = may_lead(figures.strict, rival_figures.strict, settings.clean_margin)
    return (registry.CHAMPION if leads else registry.CHALLENGER), reason
