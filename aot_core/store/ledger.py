"""The ledger of promotions: append-only, kept in the artifact store, each entry an artifact of its own.

Entry n of a model stands under the key that (model, n) gives, so any store will do: what is found at 1, 2, 3 ... until
there is none is the ledger. Each entry names the hash of the one before, so a changed or dropped one shows. MLflow
keeps no history of its aliases: this is it.
"""

import tempfile
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from aot_core.contracts.artifact import StageIdentity, StageRecord
from aot_core.contracts.base import sha256_of
from aot_core.contracts.promotion import LedgerEntry
from aot_core.store.protocol import Damage, Store, StoreError

LEDGER_STAGE = "promotion"
"""What the entries stand under in the store."""
_ENTRY = "entry.json"


class LedgerError(StoreError):
    """The ledger is damaged. The message says at which entry."""


class Ledger:
    """A model's ledger. Reading needs no lock; appending happens under `lock`."""

    def __init__(self, store: Store, model: str) -> None:
        self.store, self.model = store, model
        self._locked = False

    @contextmanager
    def lock(self) -> Generator[None]:
        """Hold the ledger, and with it the right to move the model's alias. Others wait."""
        with self.store.lock(LEDGER_STAGE, sha256_of({"lock": self.model})):
            self._locked = True
            try:
                yield
            finally:
                self._locked = False

    def entries(self) -> list[LedgerEntry]:
        """All entries, oldest first. Raises LedgerError where one is missing or was changed."""
        found: list[LedgerEntry] = []
        while True:
            number = len(found) + 1
            entry = self._read(number)
            if entry is None:
                if self._read(number + 1) is not None:
                    raise LedgerError(
                        f"ledger of {self.model}: entry {number} is missing or was changed, and a later one stands; "
                        "restore the store from its backup"
                    )
                return found
            if entry.previous != (found[-1].sha256 if found else ""):
                raise LedgerError(
                    f"ledger of {self.model}: entry {number} does not follow entry {number - 1}; one of them was "
                    "changed: restore the store from its backup"
                )
            found.append(entry)

    def append(self, files: Mapping[str, str] | None = None, **fields: Any) -> LedgerEntry:
        """Write the next entry, atomically: it stands whole or not at all.

        Args:
            files: kept beside the entry, name to text: the decision and its page.
            fields: of `LedgerEntry`, without number, previous, model and when.
        """
        assert self._locked, "append under lock: two entries may not have one number"
        known = self.entries()
        entry = LedgerEntry(
            number=len(known) + 1,
            previous=known[-1].sha256 if known else "",
            model=self.model,
            when=datetime.now(UTC).isoformat(timespec="seconds"),
            **fields,
        )
        identity = self._identity(entry.number)
        with tempfile.TemporaryDirectory(prefix="aot-ledger-") as folder:
            (Path(folder) / _ENTRY).write_text(entry.model_dump_json(indent=1), encoding="utf-8")
            for name, text in (files or {}).items():
                (Path(folder) / name).write_text(text, encoding="utf-8")
            artifact = self.store.put(LEDGER_STAGE, identity.key, Path(folder))
        self.store.seal(
            StageRecord(
                stage=LEDGER_STAGE,
                key=identity.key,
                identity=identity,
                artifact=artifact,
                outputs=entry.model_dump(mode="json"),
                seconds=0.0,
                device="",
                git_commit="",
                image_digest="",
                packages={},
                started_at=entry.when,
            )
        )
        return entry

    def file(self, entry: LedgerEntry, name: str) -> str | None:
        """The text of a file that stands beside an entry; None where there is none."""
        record = self._record(entry.number)
        path = self.store.fetch(record.artifact) / name if record else None
        return path.read_text(encoding="utf-8") if path and path.is_file() else None

    def _read(self, number: int) -> LedgerEntry | None:
        record = self._record(number)
        if record is None:
            return None
        return LedgerEntry.model_validate_json((self.store.fetch(record.artifact) / _ENTRY).read_bytes())

    def _record(self, number: int) -> StageRecord | None:
        """An entry's record. One that is damaged is no end of the ledger, and is not set aside as a stage's would be:
        nobody can make it again."""
        key = self._identity(number).key
        found = self.store.look(LEDGER_STAGE, key)
        if isinstance(found, Damage) and found.mendable:
            return self.store.find(LEDGER_STAGE, key)
        if isinstance(found, Damage):
            raise LedgerError(
                f"ledger of {self.model}: entry {number} is missing or was changed ({found}); restore the store from "
                "its backup"
            )
        return found

    def _identity(self, number: int) -> StageIdentity:
        return StageIdentity(stage=LEDGER_STAGE, version=1, config={"ledger": self.model, "number": number}, inputs={})
