"""What the campaigns of a home have done, read from their summaries alone."""

from pathlib import Path

from rich.console import Console
from rich.table import Table

from aot_core.contracts.summary import CampaignSummary
from aot_core.home import Home


def print_status(root: Path) -> None:
    """Print a table of all campaigns and, for each, its finished stages."""
    console = Console()
    files = sorted(Home(root).campaigns.glob("*/summary.json"), key=lambda p: p.stat().st_mtime)
    if not files:
        console.print(f"No campaign in {root} yet; start one with `aot run configs/tiny.toml`.")
    for file in files:
        console.print(_table(CampaignSummary.model_validate_json(file.read_bytes())))


def _table(summary: CampaignSummary) -> Table:
    title = f"{summary.name}  {summary.key[:12]}  [bold]{summary.status}[/]  updated {summary.updated_at}"
    table = Table(title=title, title_justify="left", caption=summary.message or None)
    for column in ("round", "stage", "key", "seconds", "made", "commit"):
        table.add_column(column, justify="right" if column in ("round", "seconds") else "left")
    for step in summary.steps:
        record = step.record
        made = record.started_at + (" (reused)" if step.reused else "")
        table.add_row(
            str(step.round), record.stage, record.key[:12], f"{record.seconds:.1f}", made, record.git_commit[:12]
        )
    return table
