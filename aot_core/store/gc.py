"""Which finished stages nothing needs any more: mark what is reachable from the roots; the rest may be deleted.

Roots: what the caller names (registered versions, running campaigns), every record younger than a number of days, and
the ledger of promotions and the books of series, of which nothing is ever deleted.
From a kept record everything is kept that it was made of, so a registered Defender's whole lineage stays.
"""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from aot_core.contracts.artifact import ArtifactRef, StageRecord
from aot_core.store.ledger import LEDGER_STAGE
from aot_core.store.protocol import Store

UNFINISHED_SECONDS = 24 * 3600.0
"""What has no record is left alone for so long: it may still be being written."""


@dataclass(frozen=True)
class Garbage:
    """What a collection would do, or has done."""

    kept: tuple[StageRecord, ...]
    unreached: tuple[StageRecord, ...]


def find_garbage(store: Store, roots: Collection[ArtifactRef], keep_days: float) -> Garbage:
    """Sort all finished stages by whether a root reaches them. Deletes nothing."""
    records = list(store.records())
    by_sha: dict[str, list[StageRecord]] = {}
    for record in records:
        by_sha.setdefault(record.artifact.sha256, []).append(record)
    young = datetime.now(UTC) - timedelta(days=keep_days)
    wanted = [root.sha256 for root in roots]
    wanted += [record.artifact.sha256 for record in records if datetime.fromisoformat(record.started_at) > young]
    wanted += [record.artifact.sha256 for record in records if record.stage in (LEDGER_STAGE, "edition")]
    kept: set[str] = set()
    while wanted:
        sha256 = wanted.pop()
        if sha256 in kept:
            continue
        kept.add(sha256)
        for record in by_sha.get(sha256, []):
            wanted += _texts(record.identity.inputs)
    return Garbage(
        kept=tuple(record for record in records if record.artifact.sha256 in kept),
        unreached=tuple(record for record in records if record.artifact.sha256 not in kept),
    )


def collect(store: Store, unreached: Iterable[StageRecord]) -> int:
    """Delete finished stages and what killed processes left; returns the bytes freed.

    The ones made of others go first, so that a kill half way leaves no record whose inputs are gone.
    """
    newest_first = sorted(unreached, key=lambda record: record.started_at, reverse=True)
    return sum(store.delete(record) for record in newest_first) + store.sweep(UNFINISHED_SECONDS)


def _texts(value: Any) -> Iterator[str]:
    """Every text in an identity's inputs; those that are no artifact's hash reach nothing."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for inner in value.values():  # pyright: ignore[reportUnknownVariableType]: JSON
            yield from _texts(inner)
    elif isinstance(value, list | tuple):
        for inner in value:  # pyright: ignore[reportUnknownVariableType]: JSON
            yield from _texts(inner)
