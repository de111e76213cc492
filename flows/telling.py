"""What a campaign writes for MLflow's pages: descriptions, tables, and the model card of what it registered."""

import json
from pathlib import Path

from aot_core.contracts.promotion import Decision
from aot_core.data.card import CARD_JSON
from aot_core.evaluation.approval_page import approval_page
from aot_core.evaluation.model_card import campaign_note, model_card, round_note
from aot_core.evaluation.report import accuracy_rows, change_rows
from aot_core.tracking import registry, story
from flows.campaign import OpenCampaign
from flows.links import links_of


def write_model_card(campaign: OpenCampaign, decision: Decision, outcome: str) -> None:
    """Describe a registered version where people look at it."""
    data = next(step.record for step in campaign.summary.steps if step.record.stage == "prepare_data")
    card = json.loads((campaign.store.fetch(data.artifact) / CARD_JSON).read_text(encoding="utf-8"))
    text = model_card(campaign.summary, decision, outcome, card.get("licences", {}), links_of(campaign))
    registry.describe_version(campaign.home.mlflow_uri, decision.challenger, text, decision.model)


def write_question(campaign: OpenCampaign, decision: Decision) -> Path | None:
    """Write what a person is shown who is asked for a promotion; None where nobody is."""
    if campaign.config.promotion.approval == "none" or not decision.promote:
        return None
    page = campaign.folder / "approval.md"
    page.write_text(approval_page(campaign.summary, decision, links_of(campaign)), encoding="utf-8")
    return page


def describe_runs(campaign: OpenCampaign) -> None:
    """Descriptions, tables and the tags that the runs table can show, of the campaign's run and of its rounds'."""
    summary, uri = campaign.summary, campaign.home.mlflow_uri
    story.describe_run(uri, summary.mlflow_run_id, campaign_note(summary))
    for name, rows in (("accuracy", accuracy_rows(summary)), ("changes", change_rows(summary))):
        if rows:
            story.log_table(uri, summary.mlflow_run_id, name, rows)
    for number in sorted({step.round for step in summary.steps}):
        story.describe_run(uri, campaign.round_run(number), round_note(summary, number))
    if summary.decision is not None:
        verdict = "promoted" if "champion" in summary.aliases else "not promoted"
        tags = {"aot.verdict": verdict, "aot.version": summary.registered_version}
        story.set_tags(uri, summary.mlflow_run_id, tags)
