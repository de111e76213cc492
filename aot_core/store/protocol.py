"""What every artifact store can do. The store is the truth about which stages are finished."""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from aot_core.contracts.artifact import ArtifactRef, StageRecord


class StoreError(ValueError):
    """An artifact is missing or is not what its reference says, or the store cannot be reached or trusted."""


@dataclass(frozen=True)
class Damage:
    """Something stands under a key and is not what was put there."""

    stage: str
    key: str
    why: str
    mendable: bool = False
    """Whether nothing is lost: the files are those of the record, and only their manifest is damaged."""

    def __str__(self) -> str:
        return f"aot://{self.stage}/{self.key}: {self.why}"


class Store(Protocol):
    """Immutable folders under `aot://STAGE/KEY`, each with a manifest of file hashes and a record.

    Damaged means absent: a damaged artifact is reported in one line, moved to `.damaged/` (never deleted), and made
    again by the next stage that needs it.
    """

    def find(self, stage: str, key: str) -> StageRecord | None:
        """The record of a finished stage whose files all stand unchanged, else None. Sets aside what is damaged."""
        ...

    def look(self, stage: str, key: str, *, thorough: bool = False) -> StageRecord | Damage | None:
        """What stands under a key; changes nothing.

        Args:
            thorough: read every byte, also where the store's own notes would do.
        """
        ...

    def repair(self, damage: Damage) -> str:
        """Repair what can be repaired, set the rest aside; returns a description of what was done."""
        ...

    def keys(self) -> Iterator[tuple[str, str]]:
        """Stage and key of everything that has a record, whole or not."""
        ...

    def put(self, stage: str, key: str, folder: Path) -> ArtifactRef:
        """Copy a folder in, manifest last. Until `seal`, no `find` sees it."""
        ...

    def seal(self, record: StageRecord) -> None:
        """Write `record.json`, atomically: from now on the stage is finished."""
        ...

    def fetch(self, ref: ArtifactRef) -> Path:
        """A local, read-only folder with the artifact's files. Raises StoreError if it is not there or differs."""
        ...

    def lock(self, stage: str, key: str) -> AbstractContextManager[None]:
        """Hold a stage's key while it runs. A second process waits, and then finds the first one's record.

        So a stage that outlives its killed orchestrator is waited for, not run twice.
        """
        ...

    def records(self) -> Iterator[StageRecord]:
        """The records of all finished stages, in no order; their files are not looked at. One that cannot be read is
        skipped, and reported in one line."""
        ...

    def delete(self, record: StageRecord) -> int:
        """Forget a finished stage, its record first; returns the bytes freed."""
        ...

    def sweep(self, older_than: float) -> int:
        """Remove what no record names and nobody has written to for so many seconds; returns the bytes freed."""
        ...

    def link(self, ref: ArtifactRef, path: str, seconds: int) -> str:
        """A link to one file of an artifact that a browser can follow, for so many seconds where it can expire."""
        ...
