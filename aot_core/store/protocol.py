"""What every artifact store can do. The store is the truth about which stages are finished."""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from aot_core.contracts.artifact import ArtifactRef, StageRecord


class StoreError(ValueError):
    """An artifact is missing or is not what its reference says, or the store cannot be reached or trusted."""


class Store(Protocol):
    """Immutable folders under `aot://STAGE/KEY`, each with a manifest of file hashes and a record."""

    def find(self, stage: str, key: str) -> StageRecord | None:
        """The record of a finished stage whose files all stand unchanged, else None."""
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

        So a stage that outlived its killed orchestrator is waited for, not run twice.
        """
        ...

    def records(self) -> Iterator[StageRecord]:
        """The records of all finished stages, in no order; their files are not looked at."""
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
