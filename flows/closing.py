"""What a campaign leaves for people to look at: the closing table and the report."""

from prefect.artifacts import create_markdown_artifact, create_table_artifact
from rich import box
from rich.console import Console
from rich.table import Table

from aot_core.commands.status import read_summaries
from aot_core.contracts.summary import CampaignSummary
from aot_core.evaluation.closing_table import closing_table
from aot_core.evaluation.report import accuracy_rows, chart_files, report_markdown, write_report
from aot_core.evaluation.smoke_size import smoke_size
from aot_core.home import Home
from aot_core.tracking import mlflow_tracking as tracking
from flows.campaign import OpenCampaign
from flows.links import links_of
from flows.telling import describe_runs

REPORT = "report.html"
ONE_SEED = (
    "The interval is over questions, and this is one seed; the digits differ between processors. "
    "docs/coevolution.md has the spread over five seeds."
)


def write_campaign_report(campaign: OpenCampaign) -> None:
    """Write the campaign's HTML report beside its summary, and show the same in MLflow (the page, its charts, its
    tables) and in Prefect (its tables)."""
    campaign.update(links=links_of(campaign))
    summary, folder = campaign.summary, campaign.folder
    page, text, charts = folder / REPORT, folder / "report.md", folder / "report"
    write_report(summary, page, last_campaign(summary, campaign.home))
    markdown = report_markdown(summary)
    text.write_text(markdown, encoding="utf-8")
    charts.mkdir(exist_ok=True)
    for name, png in chart_files(summary).items():
        (charts / name).write_bytes(png)
    describe_runs(campaign)
    tracking.log_artifact(campaign.home.mlflow_uri, summary.mlflow_run_id, page)
    for path in (text, charts):
        tracking.log_artifact(campaign.home.mlflow_uri, summary.mlflow_run_id, path, "report")
    key = summary.name.replace("_", "-")
    pictures = f"\n\nWith charts and galleries: `{page}`, and in MLflow run `{summary.mlflow_run_id}`.\n"
    told = "Worst case, accuracy, cost, lineage."
    create_markdown_artifact(key=f"report-{key}", markdown=markdown + pictures, description=told)
    if rows := accuracy_rows(summary):
        create_table_artifact(key=f"accuracy-{key}", table=rows, description="Strict accuracy in percent, by round.")


def print_closing_table(summary: CampaignSummary, home: Home) -> None:
    """The worst case, every condition by round, and where to look further. Nothing is cut at 80 columns."""
    console = Console(highlight=False, soft_wrap=True)
    if found := closing_table(summary):
        console.print(f"[bold]{summary.name}: {found.headline}[/]")
        for movement in found.movements:
            console.print(f"  {movement}", markup=False)
        table = Table(*found.heads, box=box.SIMPLE_HEAD, padding=(0, 1))
        for column in table.columns[1:]:
            column.justify, column.no_wrap = "right", True
        for row in found.rows:
            table.add_row(*row)
        Console(highlight=False).print(table)
        Console(highlight=False).print(f"{found.note}. {ONE_SEED}", style="dim", markup=False)
    folder = home.campaign_folder(summary.name, summary.key)
    if summary.registered_version:
        model = summary.config["promotion"]["model"]
        aliases = ", ".join(summary.aliases)
        console.print(
            f"registered  models:/{model}/{summary.registered_version} ({aliases}): {summary.promotion_reason}",
            markup=False,
        )
    if summary.decision is not None and (warning := smoke_size(summary.decision)):
        console.print(warning, style="yellow", markup=False)
    console.print(f"report      {folder / REPORT}", markup=False)
    console.print(f"MLflow and Prefect: `make ui` (or `aot ui --home {home.root}`)", markup=False)


def last_campaign(summary: CampaignSummary, home: Home) -> CampaignSummary | None:
    """The finished campaign of this name that ended last before this one began."""
    summaries, _ = read_summaries(home)
    earlier = [
        s
        for s in summaries
        if s.name == summary.name and s.key != summary.key and s.status == "finished"
        and s.updated_at <= summary.started_at
    ]  # fmt: skip
    return max(earlier, key=lambda s: s.updated_at, default=None)
