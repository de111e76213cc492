"""`aot store gc`: finds what of a store no registered version, running campaign or recent record
reaches, and deletes it."""

from collections import Counter

from filelock import FileLock, Timeout
from rich.console import Console
from rich.table import Table

from aot_core.contracts.artifact import ArtifactRef
from aot_core.contracts.store import S3Settings
from aot_core.contracts.summary import CampaignSummary
from aot_core.home import Home
from aot_core.store import open_store
from aot_core.store.gc import collect, find_garbage
from aot_core.tracking.references import registered_artifacts


def collect_garbage(home: Home, store_uri: str, s3: S3Settings, keep_days: float, *, delete: bool) -> int:
    """Say what is not reached, and delete it if told so; returns how many finished stages that are.

    Campaigns that run on another home on the same store are protected by `keep_days` alone.
    """
    store = open_store(store_uri, s3)
    roots = [*registered_artifacts(home.mlflow_uri), *running_artifacts(home)]
    garbage = find_garbage(store, roots, keep_days)
    table = Table("stage", "kept", "not reached", title=store_uri, title_justify="left")
    kept, unreached = (Counter(r.stage for r in records) for records in (garbage.kept, garbage.unreached))
    for stage in sorted({*kept, *unreached}):
        table.add_row(stage, str(kept[stage]), str(unreached[stage]))
    console = Console()
    console.print(table)
    if delete:
        console.print(f"freed {collect(store, garbage.unreached) / 2**20:.1f} MiB")
    elif garbage.unreached:
        console.print("nothing was deleted; `--delete` does it")
    return len(garbage.unreached)


def running_artifacts(home: Home) -> list[ArtifactRef]:
    """What the campaigns of this home have made or reused so far that are running now, or died while they ran."""
    found: list[ArtifactRef] = []
    for file in home.campaigns.glob("*/summary.json"):
        summary = CampaignSummary.model_validate_json(file.read_bytes())
        if summary.status == "running" or is_running(home, summary.key):
            found += [step.record.artifact for step in summary.steps]
    return found


def is_running(home: Home, campaign_key: str) -> bool:
    """Whether a process of this machine holds the campaign's lock."""
    try:
        with FileLock(home.lock_file(f"campaign-{campaign_key}"), timeout=0):
            return False
    except Timeout:
        return True
