"""The book of a series: of every edition its plan and its end, kept in the artifact store.

Edition n of a series is looked up by (series, n), so any store will do, and every machine on that store reads the same
book. An end is written once; a plan changes only where the store has lost what it names.
"""

from contextlib import AbstractContextManager
from typing import NamedTuple

from aot_core.contracts.artifact import ArtifactRef
from aot_core.contracts.base import sha256_of
from aot_core.contracts.series import EditionEnd, EditionPlan
from aot_core.store.entries import read_entry, write_entry
from aot_core.store.protocol import Store

_STAGE = "edition"


class Edition(NamedTuple):
    """One line of the book."""

    plan: EditionPlan
    end: EditionEnd | None
    """None until the edition has ended."""
    planned_at: str
    """UTC, ISO 8601."""


class SeriesBook:
    """The editions of one series."""

    def __init__(self, store: Store, series: str) -> None:
        self.store, self.series = store, series

    def lock(self) -> AbstractContextManager[None]:
        """Hold the book while an edition is planned: two planners may not have one number."""
        return self.store.lock(_STAGE, sha256_of({"lock": self.series}))

    def edition(self, number: int) -> Edition | None:
        """The edition of a number, None where it was never planned."""
        planned = read_entry(self.store, _STAGE, self._name(number, "plan"))
        if planned is None:
            return None
        ended = read_entry(self.store, _STAGE, self._name(number, "end"))
        return Edition(
            EditionPlan.model_validate_json(planned[1]),
            EditionEnd.model_validate_json(ended[1]) if ended else None,
            planned[0].started_at,
        )

    def editions(self) -> list[Edition]:
        """All editions, the oldest first."""
        found: list[Edition] = []
        while (edition := self.edition(len(found) + 1)) is not None:
            found.append(edition)
        return found

    def write_plan(self, plan: EditionPlan) -> None:
        """Enter a new edition. To be called under `lock`."""
        refs = [
            ref for ref in (plan.defender, plan.attacker, plan.bank, plan.reference, plan.previous, plan.exam) if ref
        ]
        self._write(plan.number, "plan", plan, refs)

    def write_end(self, end: EditionEnd) -> None:
        """Enter what came of an edition; one that has an end keeps it."""
        if read_entry(self.store, _STAGE, self._name(end.number, "end")) is None:
            refs = [ref for ref in (end.defender, end.warm_attacker, end.bank, end.dataset, *end.attackers) if ref]
            self._write(end.number, "end", end, refs)

    def _write(self, number: int, kind: str, entry: EditionPlan | EditionEnd, refs: list[ArtifactRef]) -> None:
        text = entry.model_dump_json(indent=1)
        write_entry(self.store, _STAGE, self._name(number, kind), text, entry.model_dump(mode="json"), refs)

    def _name(self, number: int, kind: str) -> dict[str, object]:
        return {"series": self.series, "number": number, "kind": kind}


def series_in(store: Store) -> dict[str, int]:
    """Every series of a store, and how many editions of it were planned."""
    found: dict[str, int] = {}
    for record in store.records():
        if record.stage == _STAGE and record.identity.config["kind"] == "plan":
            series = str(record.identity.config["series"])
            found[series] = found.get(series, 0) + 1
    return found
