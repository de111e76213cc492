"""What a campaign leaves for people to look at: the closing table and the report."""

from prefect.artifacts import create_markdown_artifact, create_table_artifact
from rich.console import Console
from rich.table import Table

from aot_core.contracts.evaluate import EvaluateOutputs
from aot_core.contracts.summary import CampaignSummary
from aot_core.evaluation.report import accuracy_rows, chart_files, report_markdown, write_report
from aot_core.home import Home
from aot_core.tracking import mlflow_tracking as tracking
from flows.campaign import OpenCampaign

REPORT = "report.html"


def write_campaign_report(campaign: OpenCampaign) -> None:
    """Write the campaign's HTML report beside its summary, and show the same in MLflow (the page, its charts, its
    tables) and in Prefect (its tables)."""
    summary, folder = campaign.summary, campaign.folder
    page, text, charts = folder / REPORT, folder / "report.md", folder / "report"
    write_report(summary, page)
    markdown = report_markdown(summary)
    text.write_text(markdown, encoding="utf-8")
    charts.mkdir(exist_ok=True)
    for name, png in chart_files(summary).items():
        (charts / name).write_bytes(png)
    tracking.log_artifact(campaign.home.mlflow_uri, summary.mlflow_run_id, page)
    for path in (text, charts):
        tracking.log_artifact(campaign.home.mlflow_uri, summary.mlflow_run_id, path, "report")
    key = summary.name.replace("_", "-")
    pictures = f"\n\nWith charts and galleries: `{page}`, and in MLflow run `{summary.mlflow_run_id}`.\n"
    create_markdown_artifact(key=f"report-{key}", markdown=markdown + pictures)
    if rows := accuracy_rows(summary):
        create_table_artifact(key=f"accuracy-{key}", table=rows, description="Strict accuracy in percent, by round.")


def print_closing_table(summary: CampaignSummary, home: Home) -> None:
    """Accuracy per round, and where to look further."""
    console = Console()
    rounds = [s.round for s in summary.steps if s.record.stage == "evaluate"]
    figures = {k: _figures(summary, k) for k in rounds}
    conditions = list(dict.fromkeys(name for f in figures.values() for name in f.strict))
    if conditions:
        some = next(iter(figures.values()))
        table = Table(
            title=f"{summary.name}: strict accuracy in %, 95 % interval, "
            f"every question asked {_samples(summary)} times and right each time (n = {some.n['clean']})",
            title_justify="left",
        )
        table.add_column("round")
        for name in conditions:
            table.add_column(name.replace("_", "\n"), justify="right")
        for k, f in figures.items():
            cells = [_cell(f, name) if name in f.strict else "" for name in conditions]
            table.add_row("warm\nstart" if k == 0 else str(k), *cells)
        console.print(table)
    folder = home.campaign_folder(summary.name, summary.key)
    if summary.registered_version:
        model = summary.config["promotion"]["model"]
        aliases = ", ".join(summary.aliases)
        console.print(
            f"registered  models:/{model}/{summary.registered_version} ({aliases}): {summary.promotion_reason}"
        )
    console.print(f"report      {folder / REPORT}", soft_wrap=True)
    console.print(f"MLflow and Prefect: `make ui` (or `aot ui --home {home.root}`)", soft_wrap=True)


def _figures(summary: CampaignSummary, round_index: int) -> EvaluateOutputs:
    record = summary.find("evaluate", round_index)
    assert record is not None
    return EvaluateOutputs.model_validate(record.outputs)


def _samples(summary: CampaignSummary) -> int:
    return summary.config["evaluate"]["samples"]


def _cell(figures: EvaluateOutputs, condition: str) -> str:
    share, low, high = (100 * d[condition] for d in (figures.strict, figures.low, figures.high))
    return f"{share:.1f}\n[dim]{low:.0f}..{high:.0f}[/]"
