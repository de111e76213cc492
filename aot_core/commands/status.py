"""What the campaigns of a home have done, read from their summaries only; and the Attackers in a store."""

import os
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from aot_core.contracts.store import S3Settings
from aot_core.contracts.summary import CampaignSummary
from aot_core.contracts.terminal import console, print_json, say, table, when
from aot_core.evaluation.smoke_size import smoke_size
from aot_core.home import Home
from aot_core.store.manifest import plain_bytes
from aot_core.store.protocol import Store


def print_status(root: Path, *, as_json: bool = False) -> None:
    """Print a table of all campaigns and, for each, its finished stages; or all of it as JSON."""
    summaries, unreadable = read_summaries(Home(root))
    if as_json:
        astray = aliases_astray(Home(root), summaries)
        told = [
            summary.model_dump(mode="json", exclude={"config", "decision"})
            | {"warning": smoke_size(summary.decision) if summary.decision is not None else ""}
            for summary in summaries
        ]
        print_json({"campaigns": told, "unreadable": unreadable, "aliases_astray": astray})
        return
    printed = console()
    if not summaries and not unreadable:
        printed.print(f"No campaign in {root} yet; start one with `aot run configs/tiny.toml`.")
    for summary in summaries:
        printed.print(_table(summary))
    for told in (*unreadable, *aliases_astray(Home(root), summaries)):
        say(told, style="red")


def aliases_astray(home: Home, summaries: list[CampaignSummary]) -> list[str]:
    """Where a ledger of this home's campaigns and its alias differ, a line each; and what cannot be read."""
    judged = {
        (s.config["run"]["store"] or str(home.store), str(s.config["promotion"]["model"])): s.config["run"]["s3"]
        for s in summaries
        if s.registered_version
    }
    if not judged:
        return []
    os.environ.update(home.environment())
    from aot_core.promotion.leaders import discrepancy  # MLflow takes two seconds to import
    from aot_core.store import StoreError, open_store
    from aot_core.store.ledger import Ledger
    from aot_core.tracking.database import told
    from aot_core.tracking.protocol import TrackingError

    found: list[str] = []
    for (store, model), s3 in judged.items():
        try:
            with told():
                ledger = Ledger(open_store(store, S3Settings.model_validate(s3)), model)
                found.append(discrepancy(home.mlflow_uri, model, ledger.entries()))
        except (StoreError, TrackingError) as error:
            found.append(str(error))
    return [line for line in found if line]


def print_pool(store: Store, *, as_json: bool = False) -> None:
    """Print every Attacker of the store as a reference, newest first: when it was trained, from which base, and how
    often it deceived the Defender that it was trained against."""
    printed = Console(soft_wrap=True)
    attackers = sorted(
        (record for record in store.records() if record.stage == "attacker_round"),
        key=lambda record: record.started_at,
        reverse=True,
    )
    if as_json:
        print_json(
            [
                {
                    "uri": record.artifact.uri,
                    "trained": record.started_at,
                    "base": record.identity.inputs["attacker_base"],
                    "success": record.outputs["success_after"],
                }
                for record in attackers
            ]
        )
        return
    if not attackers:
        printed.print("No Attackers in this store yet; a campaign's rounds train them.")
    for record in attackers:
        success = 100 * float(record.outputs["success_after"])
        base = str(record.identity.inputs["attacker_base"])[:12]
        told = f"{record.started_at}  base {base}  success {success:.1f} %"
        printed.print(f"{record.artifact.uri}  {told}", highlight=False)


def read_summaries(home: Home) -> tuple[list[CampaignSummary], list[str]]:
    """The summaries of a home's campaigns, the longest unchanged first; and a line for each that cannot be read."""
    summaries: list[CampaignSummary] = []
    unreadable: list[str] = []
    for file in sorted(home.campaigns.glob("*/summary.json"), key=lambda path: path.lstat().st_mtime):
        try:
            summaries.append(CampaignSummary.model_validate_json(plain_bytes(file)))
        except (OSError, ValueError) as error:
            why = str(error).partition("\n")[0]
            unreadable.append(f"{file} cannot be read ({why}); running its campaign again rewrites it")
    return summaries, unreadable


def _registered(summary: CampaignSummary) -> str:
    """The version that came of a campaign, its aliases when the campaign ended, and why; "" where there is none."""
    if not summary.registered_version:
        return ""
    aliases = f" ({', '.join(summary.aliases)})" if summary.aliases else ""
    return f"registered as version {summary.registered_version}{aliases}: {summary.promotion_reason}"


def _table(summary: CampaignSummary) -> Table:
    title = f"{summary.name}  {summary.key[:12]}  [bold]{summary.status}[/]  updated {when(summary.updated_at)} UTC"
    columns = ("round", "stage", "key", "seconds", "started (UTC)", "commit")
    made_of = table(title, *columns, right=("round", "seconds"), whole=("stage", "key", "started (UTC)", "commit"))
    reused = "* reused: the store held the result" if any(step.reused for step in summary.steps) else ""
    labels = {name.removeprefix("aot."): value for name, value in summary.labels.items()}
    told = [
        reused,
        summary.note,
        ", ".join(f"{name}: {value}" for name, value in labels.items()),
        _registered(summary),
        smoke_size(summary.decision) if summary.decision is not None else "",
        summary.message,
    ]
    made_of.caption, made_of.caption_justify = Text("\n".join(line for line in told if line)), "left"
    for step in summary.steps:
        record = step.record
        seconds = f"{record.seconds:.1f}{'*' if step.reused else ' '}"
        made_of.add_row(
            str(step.round), record.stage, record.key[:12], seconds, when(record.started_at), record.git_commit[:7]
        )
    return made_of
