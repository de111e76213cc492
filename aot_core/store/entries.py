"""Small records that belong to no stage: each is written atomically.

A record's key is what it is looked up by; its identity's inputs name the artifacts that it refers to, so that garbage
collection keeps them.
"""

import tempfile
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from aot_core.contracts.artifact import ArtifactRef, RecordName, StageIdentity, StageRecord
from aot_core.contracts.base import sha256_of
from aot_core.store.protocol import Damage, Store, StoreError


def entry_key(stage: RecordName, name: Mapping[str, Any]) -> str:
    """The key of the entry of that name."""
    return sha256_of({"entry": stage, **name})


def write_entry(
    store: Store,
    stage: RecordName,
    name: Mapping[str, Any],
    text: str,
    outputs: dict[str, Any],
    refers_to: Iterable[ArtifactRef] = (),
) -> StageRecord:
    """Write an entry, atomically.

    Args:
        name: what it is looked up by.
        text: its contents, `entry.json`.
        outputs: shown in listings of records.
    """
    key = entry_key(stage, name)
    identity = StageIdentity(
        stage=stage, version=1, config=dict(name), inputs={"refers_to": sorted({ref.sha256 for ref in refers_to})}
    )
    with tempfile.TemporaryDirectory(prefix="aot-entry-") as folder:
        (Path(folder) / "entry.json").write_text(text, encoding="utf-8")
        artifact = store.put(stage, key, Path(folder))
    record = StageRecord(
        stage=stage,
        key=key,
        identity=identity,
        artifact=artifact,
        outputs=outputs,
        seconds=0.0,
        device="",
        git_commit="",
        image_digest="",
        packages={},
        started_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    store.seal(record)
    return record


def read_entry(store: Store, stage: RecordName, name: Mapping[str, Any]) -> tuple[StageRecord, bytes] | None:
    """An entry's record and contents; None where there is none.

    Raises StoreError for one that is damaged: unlike a stage's, nobody can make it again, so it is not set aside.
    """
    found = store.look(stage, entry_key(stage, name))
    if isinstance(found, Damage) and found.mendable:
        found = store.find(stage, entry_key(stage, name))
    if isinstance(found, Damage):
        raise StoreError(f"{found}; restore it from the store's backup")
    return None if found is None else (found, (store.fetch(found.artifact) / "entry.json").read_bytes())
