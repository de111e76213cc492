"""A store in a folder: `ROOT/STAGE/KEY/{files/, manifest.json, record.json}`.

Every step is atomic: files are copied beside their place and renamed into it, the record is written last. So a kill
at any moment leaves either a finished stage or none, and the next start clears what lies about.
"""

import json
import os
import shutil
import tempfile
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

from aot_core.contracts.artifact import ArtifactRef, StageRecord
from aot_core.contracts.paths import local_path
from aot_core.store.manifest import Manifest, manifest_of
from aot_core.store.protocol import StoreError

_FILES, _MANIFEST, _RECORD = "files", "manifest.json", "record.json"
_STALE_SECONDS = 3600


class LocalStore:
    """Immutable folders on a local or shared disk."""

    def __init__(self, root: str | Path) -> None:
        """Raises StoreError where no folder is or can be made there."""
        try:
            self.root = local_path(root).resolve()
            self.root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(
                f"store {str(root)[:200]!r} cannot be used ({error.strerror}); run.store and --store take a folder, or "
                "s3://BUCKET/PREFIX"
            ) from error

    def find(self, stage: str, key: str) -> StageRecord | None:
        """See `Store.find`. An artifact whose files changed counts as not there: the stage runs again."""
        home = self._home(stage, key)
        if not (home / _RECORD).is_file():
            return None
        record = StageRecord.model_validate_json((home / _RECORD).read_bytes())
        return record if manifest_of(home / _FILES).sha256 == record.artifact.sha256 else None

    def put(self, stage: str, key: str, folder: Path) -> ArtifactRef:
        """See `Store.put`. Replaces an unfinished or damaged predecessor of the same key; an equal one stays where it
        is, for somebody may be reading it."""
        home = self._home(stage, key)
        home.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=".incoming-", dir=home.parent))
        try:
            shutil.copytree(folder, staging / _FILES)
            manifest = manifest_of(staging / _FILES)
            (staging / _MANIFEST).write_text(manifest.model_dump_json(indent=1))
            if _holds(home, manifest):
                shutil.rmtree(staging)
            else:
                if home.exists():
                    shutil.rmtree(home)
                staging.rename(home)
        except BaseException:
            shutil.rmtree(staging, ignore_errors=True)
            raise
        return ArtifactRef(uri=f"aot://{stage}/{key}", sha256=manifest.sha256)

    def seal(self, record: StageRecord) -> None:
        """See `Store.seal`."""
        home = self._home(record.stage, record.key)
        partial = home / (_RECORD + ".partial")
        with partial.open("w") as stream:
            json.dump(record.model_dump(mode="json"), stream, indent=1)
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(home / _RECORD)

    def fetch(self, ref: ArtifactRef) -> Path:
        """See `Store.fetch`. The folder itself, not a copy."""
        stage, key = ref.uri.removeprefix("aot://").split("/")
        home = self._home(stage, key)
        if not (home / _MANIFEST).is_file():
            raise StoreError(f"artifact {ref.uri} is not in {self.root}; run the stage that makes it")
        manifest = Manifest.model_validate_json((home / _MANIFEST).read_bytes())
        if manifest.sha256 != ref.sha256:
            raise StoreError(
                f"artifact {ref.uri} is not the one referred to (sha256 {manifest.sha256[:12]}, wanted "
                f"{ref.sha256[:12]}); it was made again since: run the campaign again"
            )
        return home / _FILES

    @contextmanager
    def lock(self, stage: str, key: str) -> Generator[None]:
        """See `Store.lock`. The system gives the lock back when its holder dies, however it dies."""
        folder = self.root / ".locks"
        folder.mkdir(exist_ok=True)
        with FileLock(folder / f"{stage}-{key}.lock"):
            self._sweep(stage)
            yield

    def records(self) -> Iterator[StageRecord]:
        """See `Store.records`."""
        for file in self.root.glob(f"[!.]*/*/{_RECORD}"):
            yield StageRecord.model_validate_json(file.read_bytes())

    def delete(self, record: StageRecord) -> int:
        """See `Store.delete`."""
        home = self._home(record.stage, record.key)
        (home / _RECORD).unlink(missing_ok=True)
        return _remove(home)

    def sweep(self, older_than: float) -> int:
        """See `Store.sweep`."""
        before = time.time() - older_than
        loose = (home for home in self.root.glob("[!.]*/*") if not (home / _RECORD).is_file())
        return sum(_remove(home) for home in loose if home.stat().st_mtime < before)

    def link(self, ref: ArtifactRef, path: str, seconds: int) -> str:  # noqa: ARG002 - a file's link does not expire
        """See `Store.link`."""
        return (self.fetch(ref) / path).as_uri()

    def _sweep(self, stage: str) -> None:
        """Remove what killed processes left half copied, an hour after they began."""
        for leftover in (self.root / stage).glob(".incoming-*"):
            if leftover.stat().st_mtime < time.time() - _STALE_SECONDS:
                shutil.rmtree(leftover, ignore_errors=True)

    def _home(self, stage: str, key: str) -> Path:
        return self.root / stage / key


def _holds(home: Path, manifest: Manifest) -> bool:
    """Whether an artifact stands there whole, with these contents."""
    told = home / _MANIFEST
    if not told.is_file() or told.read_text() != manifest.model_dump_json(indent=1):
        return False
    return manifest_of(home / _FILES) == manifest


def _remove(folder: Path) -> int:
    """Delete a folder; returns the bytes of its files."""
    freed = sum(path.lstat().st_size for path in folder.rglob("*") if not path.is_dir())
    shutil.rmtree(folder, ignore_errors=True)
    return freed
