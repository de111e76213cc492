"""What every artifact store can do. The store is the truth about which stages are finished."""

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from aot_core.contracts.artifact import ArtifactRef, StageRecord


class StoreError(ValueError):
    """An artifact is missing or is not what its reference says."""


class Store(Protocol):
    """Immutable folders under `aot://STAGE/KEY`, each with a manifest of file hashes and a record."""

    def find(self, stage: str, key: str) -> StageRecord | None:
        """The record of a finished stage whose files all stand and whose hashes hold, else None."""
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
