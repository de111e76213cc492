"""A series where people look: its page beside the campaigns, one long-lived MLflow run, a Prefect artifact."""

from prefect.artifacts import create_markdown_artifact

from aot_core.commands.trend_fate import rollbacks
from aot_core.commands.trend_figures import edition_figures
from aot_core.commands.trend_page import trend_markdown, trend_page
from aot_core.series.book import SeriesBook
from aot_core.tracking import mlflow_tracking as tracking
from aot_core.tracking import story
from flows.campaign import OpenCampaign

EXPERIMENT = "aot-series"


def show_trend(campaign: OpenCampaign) -> None:
    """To be called when an edition has ended; without a series nothing happens."""
    plan = campaign.config.edition
    if plan is None:
        return
    editions = SeriesBook(campaign.store, plan.series).editions()
    page = campaign.home.campaigns / f"trend-{plan.series}.html"
    back = rollbacks(campaign.store, editions)
    page.write_text(trend_page(plan.series, editions, back), encoding="utf-8")
    markdown = trend_markdown(plan.series, editions, back)
    told = "Every edition: accuracy, cost, outcome."
    create_markdown_artifact(key=f"trend-{plan.series}".replace("_", "-"), markdown=markdown, description=told)
    uri = campaign.home.mlflow_uri
    run_id = tracking.open_campaign_run(uri, EXPERIMENT, f"series:{plan.series}", plan.series, {})
    for edition in editions:
        if edition.end is None:
            continue
        shares = {name: value for name, value in edition_figures(edition.end).items() if value is not None}
        figures = {
            **shares,
            "hours": edition.end.seconds / 3600,
            "stages": edition.end.stages,
            "promoted": edition.end.outcome.startswith("promoted"),
        }
        named = {name.replace(", ", " ").replace("'", ""): float(value) for name, value in figures.items()}
        tracking.log_stage_summary(uri, run_id, "edition", edition.end.campaign, named, 0.0, edition.plan.number, named)
    story.describe_run(uri, run_id, markdown)
    tracking.log_artifact(uri, run_id, page)
    tracking.close_run(uri, run_id)
