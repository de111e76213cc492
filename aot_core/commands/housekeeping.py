"""`aot store gc`: finds what of a store no registered version, running campaign or recent record
reaches, and deletes it. `aot store verify`: compares every hash, and repairs."""

import logging
from collections import Counter
from collections.abc import Iterable

from filelock import FileLock, Timeout
from rich.console import Console

from aot_core.commands.status import read_summaries
from aot_core.contracts.artifact import ArtifactRef
from aot_core.contracts.summary import CampaignSummary
from aot_core.contracts.terminal import table
from aot_core.home import Home
from aot_core.store import Store, StoreError
from aot_core.store.gc import collect, find_garbage
from aot_core.store.ledger import LEDGER_STAGE
from aot_core.store.verify import verify
from aot_core.tracking.references import registered_artifacts

logger = logging.getLogger(__name__)


def collect_garbage(home: Home, store: Store, keep_days: float, *, delete: bool) -> int:
    """Report what is not reached, and delete it if asked to; returns the number of such finished stages.

    Campaigns that run on another home on the same store are protected by `keep_days` alone.

    Raises StoreError where deletion is not safe: a campaign's summary cannot be read, or the store's ledger names
    champions and the home's registry holds no version at all.
    """
    summaries, unreadable = read_summaries(home)
    for told in unreadable:
        logger.warning("%s", told)
    if unreadable and delete:
        raise StoreError(
            "what those campaigns made is unknown, so nothing is deleted; run them again, or move the files away"
        )
    registered = registered_artifacts(home.mlflow_uri)
    if delete and not registered and _had_champions(store):
        raise StoreError(
            f"the ledger of store {store} names champions, and the registry of home {home.root} holds no version, so "
            "nothing is deleted; give the --home of the campaigns that use this store, or set MLFLOW_TRACKING_URI"
        )
    garbage = find_garbage(store, [*registered, *running_artifacts(home, summaries)], keep_days)
    counted = table(str(store), "stage", "kept", "not reached", right=("kept", "not reached"))
    kept, unreached = (Counter(r.stage for r in records) for records in (garbage.kept, garbage.unreached))
    for stage in sorted({*kept, *unreached}):
        counted.add_row(stage, str(kept[stage]), str(unreached[stage]))
    console = Console()
    console.print(counted)
    if delete:
        console.print(f"freed {collect(store, garbage.unreached) / 2**20:.1f} MiB")
    elif garbage.unreached:
        console.print("nothing was deleted; add `--delete` to delete it")
    return len(garbage.unreached)


def _had_champions(store: Store) -> bool:
    return any(record.stage == LEDGER_STAGE and record.outputs.get("kind") == "done" for record in store.records())


def verify_store(store: Store) -> bool:
    """Compare every hash of a store, repair what is damaged, and report it; returns whether all of it was intact."""
    found = verify(store)
    counted = table(str(store), "stage", "whole", "damaged", right=("whole", "damaged"))
    damaged = Counter(damage.stage for damage, _ in found.damaged)
    for stage in sorted({*found.whole, *damaged}):
        counted.add_row(stage, str(found.whole[stage]), str(damaged[stage]))
    console = Console(soft_wrap=True, highlight=False)
    console.print(counted)
    for damage, done in found.damaged:
        console.print(f"{damage}; {done}", markup=False)
    return not found.damaged


def running_artifacts(home: Home, summaries: Iterable[CampaignSummary]) -> list[ArtifactRef]:
    """What the campaigns of this home have made or reused so far that are running now, or died while they ran."""
    return [
        step.record.artifact
        for summary in summaries
        if summary.status == "running" or is_running(home, summary.key)
        for step in summary.steps
    ]


def is_running(home: Home, campaign_key: str) -> bool:
    """Whether a process of this machine holds the campaign's lock."""
    try:
        with FileLock(home.lock_file(f"campaign-{campaign_key}"), timeout=0):
            return False
    except Timeout:
        return True
