"""The champion against today's attacks: the campaign's held-out questions, and the store's newest Attackers.

The figures stand in MLflow (a run of their own, and the version's tags `aot.lately.*`) and go out as a Prefect event
for automations. Where no new Attacker has come since the last time the store answers, in seconds.
"""

from collections.abc import Mapping
from datetime import UTC, datetime

from prefect.events import emit_event

from aot_core.contracts.artifact import ArtifactRef
from aot_core.contracts.campaign import CampaignConfig
from aot_core.contracts.evaluate import CLEAN, EvaluateInputs, EvaluateOutputs
from aot_core.contracts.terminal import counted
from aot_core.engine.identity import pin_model
from aot_core.engine.runner import execute, find
from aot_core.home import Home
from aot_core.launch import open_launcher
from aot_core.store import StoreError
from aot_core.tracking import registry
from aot_core.tracking.mlflow_tracking import ARTIFACT_SHA_TAG, ARTIFACT_URI_TAG
from flows import tasks
from flows.campaign import OpenCampaign
from flows.events import fell, tell_fall
from flows.maintenance import take_over

_LATELY = "aot.lately."
_LONGEST_NAME = 63


def measure_champion(config: CampaignConfig, home: Home, newest: int) -> str:
    """Evaluate the champion; returns a description of the result.

    Args:
        config: whose data set, base models and `[evaluate]` are taken; its own campaign is left alone.
        newest: how many of the store's Attackers are met at most, the newest.

    Raises StoreError where the champion's artifact is not in the store, StageError, and CampaignBusyError.
    """
    model = config.promotion.model
    leading = registry.get_champion(home.mlflow_uri, model)
    if leading is None:
        return f"{model} has no champion yet"
    version, tags = leading
    if not {ARTIFACT_URI_TAG, ARTIFACT_SHA_TAG, registry.BASE_TAG} <= set(tags):
        raise StoreError(f"{model} version {version} names no artifact; promote one that a campaign has registered")
    champion = ArtifactRef(uri=tags[ARTIFACT_URI_TAG], sha256=tags[ARTIFACT_SHA_TAG])
    name = f"{config.name[: _LONGEST_NAME - len('-champion')]}-champion"
    campaign = OpenCampaign(config.model_copy(update={"name": name}), home)
    open_launcher(config.run, execute, find).check(campaign.any_place())
    with campaign:
        take_over(campaign.key, home)
        data = tasks.prepare_data(campaign, campaign.data_inputs()).artifact
        attackers = newest_attackers(campaign, newest)
        exam = EvaluateInputs(
            dataset=data,
            defender=champion,
            defender_base=pin_model(tags[registry.BASE_TAG]),
            attacker_base=campaign.attacker_base,
            attackers=attackers,
            benchmark_folder=campaign.benchmarks,
            judge=campaign.judge(config.evaluate.validity),
        )
        figures = EvaluateOutputs.model_validate(tasks.evaluate(campaign, exam).outputs)
    reference = _reference(tags)
    fallen = fell(reference, figures)
    told = {
        CLEAN: repr(figures.strict[CLEAN]),
        "worst": repr(figures.worst),
        "worst_condition": figures.worst_condition,
        "attackers": str(len(attackers)),
        "reference": repr(figures.worst if fallen or reference is None else reference),
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    registry.tag_version(home.mlflow_uri, version, {_LATELY + key: value for key, value in told.items()}, model)
    if fallen and reference is not None:
        tell_fall(model, version, reference, figures, len(attackers), home)
    emit_event(
        event="aot.champion.measured",
        resource={"prefect.resource.id": f"aot.model.{model}"},
        payload={**told, "version": version},
    )
    return (
        f"{model} version {version}: clean {100 * figures.strict[CLEAN]:.1f} %, worst {100 * figures.worst:.1f} % "
        f"({figures.worst_condition}), {counted(len(attackers), 'Attacker')} met"
    )


def _reference(tags: Mapping[str, str]) -> float | None:
    """The worst case that a fall is told against: the one that the version was promoted by, and after a fall the one
    that was told."""
    if kept := tags.get(f"{_LATELY}reference"):
        return float(kept)
    return registry.gate_figures(tags).get("challenger/worst")


def newest_attackers(campaign: OpenCampaign, newest: int) -> tuple[ArtifactRef, ...]:
    """The last Attackers that any campaign has trained on this one's base into its store, the oldest first."""
    base = campaign.attacker_base.sha256 or campaign.attacker_base.name
    found = [
        record
        for record in campaign.store.records()
        if record.stage == "attacker_round" and record.identity.inputs["attacker_base"] == base
    ]
    found.sort(key=lambda record: (record.started_at, record.key))
    return tuple(record.artifact for record in found[max(len(found) - newest, 0) :])
