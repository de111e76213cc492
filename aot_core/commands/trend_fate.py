"""What became of an edition's version after the edition had ended: the ledger knows, the series' book does not."""

from collections.abc import Sequence

from aot_core.contracts.promotion import LedgerEntry
from aot_core.contracts.terminal import when
from aot_core.series.book import Edition
from aot_core.store.ledger import Ledger
from aot_core.store.protocol import Store


def rollbacks(store: Store, editions: Sequence[Edition]) -> dict[int, str]:
    """Edition to "rolled back DATE by WHO: WHY", of those whose version was taken from the lead.

    Raises LedgerError where a ledger is damaged.
    """
    ledgers = {edition.end.model: Ledger(store, edition.end.model).entries() for edition in editions if edition.end}
    if not any(_back(entry) for entries in ledgers.values() for entry in entries):
        return {}
    from aot_core.promotion.leaders import Leader, rolled_back  # MLflow takes two seconds to import

    found: dict[int, str] = {}
    for plan, end, _ in editions:
        if end is None or not end.version:
            continue
        sha256 = end.defender.sha256 if end.defender else ""
        entry = rolled_back(ledgers[end.model], Leader(end.version, sha256))
        # A later edition that trained nothing may end with an earlier one's version.
        if entry is not None and entry.when >= end.ended_at:
            found[plan.number] = f"rolled back {when(entry.when)} by {entry.who}: {entry.why}"
    return found


def _back(entry: LedgerEntry) -> bool:
    return entry.kind == "done" and entry.action == "rollback"
