"""What people are told while it matters: Prefect events, by name, each with the figures and pages that one needs.

An event says one fact once: its number follows from the fact, and what the server has heard before (a campaign that was
resumed, the next maintenance an hour later) is not sent again. `flows.automations` makes what listens to them;
`docs/events.md` has their payloads.
"""

from collections.abc import Sequence
from typing import Any
from uuid import UUID, uuid5

import httpx
from prefect.client.orchestration import get_client
from prefect.events import emit_event
from prefect.runtime import flow_run

from aot_core.commands.errors import sentence
from aot_core.commands.ui import MLFLOW_PORT
from aot_core.contracts.artifact import StageRecord
from aot_core.contracts.errors import StageCancelledError
from aot_core.contracts.evaluate import EvaluateOutputs
from aot_core.contracts.promotion import LedgerEntry
from aot_core.contracts.series import EditionPlan
from aot_core.evaluation.headline import spoken
from aot_core.evaluation.statistics import Proportion, proportion
from aot_core.home import Home
from aot_core.promotion.notify import message
from aot_core.tracking.pages import version_page
from flows.campaign import CampaignBusyError, OpenCampaign
from flows.links import links_of

EVENTS = {
    "aot.promotion.done": "promoted or rolled back",
    "aot.promotion.proposed": "a person is asked",
    "aot.promotion.refused": "refused by the gate",
    "aot.promotion.declined": "declined by a person",
    "aot.promotion.expired": "nobody answered",
    "aot.promotion.undone": "moved back, the new champion did not answer",
    "aot.champion.fell": "the champion's robustness fell",
    "aot.champion.changed": "the champion answers otherwise than when it was promoted",
    "aot.champion.astray": "the champion's alias was moved past the gate",
    "aot.attacker.jumped": "an Attacker has found a new weakness",
    "aot.data.drifted": "the data have drifted",
    "aot.edition.over_budget": "an edition has used its budget up",
    "aot.edition.overdue": "an edition was never finished",
    "aot.campaign.failed": "a campaign or an edition has failed",
}
"""Name to what it says, of those that somebody may want to act on. `aot.promotion.intent`, `aot.promotion.abandoned`
and `aot.champion.measured` are sent too."""

_NAMESPACE = UUID("5f4d6c0e-4d0b-4c55-9f62-1f4c6b6f0a17")


def tell(event: str, resource: str, message: str, once: str, **facts: Any) -> None:
    """Send an event, unless the server has it.

    Args:
        resource: what it is about, `aot.model.NAME`, `aot.campaign.KEY` or `aot.series.NAME`.
        message: a sentence for people; the payload's first field.
        once: what tells this fact from the next one of its kind.
        facts: the rest of the payload.
    """
    number = uuid5(_NAMESPACE, f"{event} {resource} {once}")
    if not _known(number):
        labels = {"prefect.resource.id": resource, "prefect.resource.name": resource.rpartition(".")[2]}
        if action := facts.get("action"):
            labels["aot.action"] = str(action)  # an automation may ask for promotions alone
        emit_event(event=event, resource=labels, payload={"message": message, **facts}, id=number)


def _known(number: UUID) -> bool:
    """Whether the server has an event. One that does not answer has none: the sender tries again for a while."""
    try:
        with get_client(sync_client=True) as client:
            found = client.request("POST", "/events/filter", json={"filter": {"id": {"id": [str(number)]}}, "limit": 1})
            return bool(found.json()["events"])
    except httpx.HTTPError:
        return False


def tell_ledger(entry: LedgerEntry, home: Home) -> None:
    """`aot.promotion.KIND`: an entry of the ledger, as `promotion.webhook` is told it."""
    page = version_page(home.mlflow_uri, entry.model, entry.to_version, f"http://127.0.0.1:{MLFLOW_PORT}")
    facts = {**entry.model_dump(mode="json"), "version": page}
    tell(f"aot.promotion.{entry.kind}", _model(entry.model), message(entry), entry.sha256, **facts)


def tell_failure(name: str, plan: EditionPlan | None, home: str, error: Exception) -> None:
    """`aot.campaign.failed`. Neither somebody's Ctrl-C is one, nor a second process at the same campaign.

    Args:
        name: the campaign's, or its config file's where that cannot be read.
    """
    if isinstance(error, StageCancelledError | CampaignBusyError):
        return
    what = f"series {plan.series}, edition {plan.number}" if plan else f"campaign {name}"
    tell(
        "aot.campaign.failed",
        f"aot.series.{plan.series}" if plan else f"aot.campaign.{name}",
        f"{what} has failed: {sentence(error)}",
        str(flow_run.get_id()),
        campaign=name,
        **_of_edition(plan),
        home=home,
        error=type(error).__name__,
    )


def tell_drift(campaign: OpenCampaign, told: str, divergence: dict[str, float]) -> None:
    """`aot.data.drifted`, with the divergence of each column that has drifted, in nats."""
    _tell_of(campaign, "aot.data.drifted", told, "drift", divergence=divergence)


def tell_labels(campaign: OpenCampaign, told: str, before: float, now: float) -> None:
    """`aot.data.drifted`, where it is the answers that are in doubt: with the strict accuracy of the Defender that the
    edition begins with on the first edition's clean questions and on this one's. Another fact than a drifted column."""
    _tell_of(campaign, "aot.data.drifted", told, "labels", before=before, clean=now)


def tell_budget(campaign: OpenCampaign, told: str, played: int) -> None:
    """`aot.edition.over_budget`, with the rounds that were played to their end."""
    _tell_of(campaign, "aot.edition.over_budget", f"{told}; the edition ends with what it has", "budget", rounds=played)


def tell_jump(campaign: OpenCampaign, earlier: Sequence[StageRecord], attack: StageRecord, round_index: int) -> None:
    """`aot.attacker.jumped`, where a round's Attacker succeeds more often than every earlier one did against its own
    Defender: the 95 % intervals do not overlap."""
    best = max((_success(record) for record in earlier), key=lambda share: share.value, default=None)
    now = _success(attack)
    if best is None or now.low <= best.high:
        return
    _tell_of(
        campaign,
        "aot.attacker.jumped",
        f"round {round_index}'s Attacker succeeds with {100 * now.value:.1f} % of its edits "
        f"({100 * now.low:.1f} to {100 * now.high:.1f}); the strongest before it had {100 * best.value:.1f} %",
        f"round {round_index}",
        round=round_index,
        success=now.value,
        before=best.value,
        attacker=attack.artifact.uri,
    )


def fell(reference: float | None, figures: EvaluateOutputs) -> bool:
    """Whether the worst case is lower than it was: the reference lies above its 95 % interval."""
    return reference is not None and figures.high[figures.worst_condition] < reference


def tell_fall(model: str, version: str, reference: float, figures: EvaluateOutputs, attackers: int, home: Home) -> None:
    """`aot.champion.fell`, with the worst case now and the one that it is held against."""
    told = (
        f"{model} version {version}: {100 * figures.worst:.1f} % under {spoken(figures.worst_condition)}, and "
        f"{100 * reference:.1f} % before, with {attackers} Attackers met"
    )
    facts = {"worst": figures.worst, "condition": figures.worst_condition, "before": reference, "attackers": attackers}
    page = version_page(home.mlflow_uri, model, version, f"http://127.0.0.1:{MLFLOW_PORT}")
    once = f"{version} {figures.worst!r} {reference!r}"
    tell("aot.champion.fell", _model(model), told, once, **facts, strict=figures.strict, version=page)


def tell_changed(model: str, told: str) -> None:
    """`aot.champion.changed`: a re-evaluation found other answers. The message names the first ten."""
    tell("aot.champion.changed", _model(model), told, str(flow_run.get_id()))


def tell_astray(model: str, told: str) -> None:
    """`aot.champion.astray`: alias and ledger differ. The message says how, and the way out."""
    tell("aot.champion.astray", _model(model), told, told)


def tell_overdue(plan: EditionPlan, planned_at: str) -> None:
    """`aot.edition.overdue`: an edition was planned, has no end, and no process runs it."""
    told = f"series {plan.series}, edition {plan.number}: planned at {planned_at}, not finished, and no process runs it"
    facts = {**_of_edition(plan), "planned_at": planned_at, "slot": plan.slot}
    tell("aot.edition.overdue", f"aot.series.{plan.series}", told, f"{plan.number} {planned_at}", **facts)


def _tell_of(campaign: OpenCampaign, event: str, message: str, once: str, **facts: Any) -> None:
    """Tell something of a campaign, with where to look further."""
    config = campaign.config
    where = {"campaign": config.name, **_of_edition(config.edition), "home": str(campaign.home.root)}
    # A stage that is made anew is another fact, a campaign that goes on is not.
    restart = config.restart.asked_at if config.restart else ""
    once = f"{once} {restart}"
    tell(event, f"aot.campaign.{campaign.key}", message, once, **where, links=links_of(campaign), **facts)


def _of_edition(plan: EditionPlan | None) -> dict[str, Any]:
    return {"series": plan.series, "edition": plan.number} if plan else {}


def _model(name: str) -> str:
    return f"aot.model.{name}"


def _success(record: StageRecord) -> Proportion:
    scenes = int(record.outputs["probe"])
    won = round(float(record.outputs["success_after"]) * scenes)
    return proportion([True] * won + [False] * (scenes - won))
