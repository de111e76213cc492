"""A store in a folder: `ROOT/STAGE/KEY/{files/, manifest.json, record.json}`.

Every step is atomic: files are copied beside their place and renamed into it, the record is written last. So a kill
at any moment leaves either a finished stage or none, and the next start removes the leftovers.
"""

import json
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock

from aot_core.contracts.artifact import ArtifactRef, StageRecord
from aot_core.contracts.paths import local_path
from aot_core.store.manifest import Manifest, manifest_of, plain_bytes
from aot_core.store.protocol import Damage, StoreError

logger = logging.getLogger(__name__)

_FILES, _MANIFEST, _RECORD, _DAMAGED = "files", "manifest.json", "record.json", ".damaged"
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

    def __str__(self) -> str:
        return str(self.root)

    def find(self, stage: str, key: str) -> StageRecord | None:
        """See `Store.find`. An artifact whose files changed counts as not there: the stage runs again."""
        found = self.look(stage, key)
        if isinstance(found, Damage):
            logger.warning("%s; %s", found, self.repair(found))
            found = self.look(stage, key)
        return found if isinstance(found, StageRecord) else None

    def look(self, stage: str, key: str, *, thorough: bool = False) -> StageRecord | Damage | None:  # noqa: ARG002
        """See `Store.look`. Always thorough: there are no notes but the files."""
        home = self._home(stage, key)
        if not os.path.lexists(home / _RECORD):
            return None
        try:
            record = StageRecord.model_validate_json(plain_bytes(home / _RECORD))
        except (OSError, ValueError) as error:
            return Damage(stage, key, f"its record cannot be read ({_first_line(error)})")
        if (record.stage, record.key) != (stage, key):
            return Damage(stage, key, f"its record is that of aot://{record.stage}/{record.key}")
        try:
            manifest = manifest_of(home / _FILES)
        except (OSError, ValueError) as error:
            return Damage(stage, key, f"its files cannot be read ({_first_line(error)})")
        if manifest.sha256 != record.artifact.sha256:
            return Damage(stage, key, "its files are not those that were put there")
        if _told_manifest(home) != manifest:
            return Damage(stage, key, "its manifest is missing or damaged", mendable=True)
        return record

    def repair(self, damage: Damage) -> str:
        """See `Store.repair`. A store that this user may not write to stays as it is."""
        try:
            with self._moving():
                # Somebody may have made it again since.
                found = self.look(damage.stage, damage.key)
                if not isinstance(found, Damage):
                    return "it is whole again"
                home = self._home(damage.stage, damage.key)
                if found.mendable:
                    _write_manifest(home, manifest_of(home / _FILES))
                    return "written again from its files, which are those of its record"
                return f"set aside as {self._set_aside(home)}; it counts as absent and is made again"
        except OSError as error:
            return f"it counts as absent, and could not be set aside ({error.strerror})"

    def keys(self) -> Iterator[tuple[str, str]]:
        """See `Store.keys`."""
        for home in self.root.glob("[!.]*/[!.]*"):
            if os.path.lexists(home / _RECORD):
                yield home.parent.name, home.name

    def put(self, stage: str, key: str, folder: Path) -> ArtifactRef:
        """See `Store.put`. Replaces an unfinished or damaged predecessor of the same key; an equal one stays where it
        is, for somebody may be reading it."""
        home = self._home(stage, key)
        home.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=".incoming-", dir=home.parent))
        try:
            shutil.copytree(folder, staging / _FILES)
            manifest = manifest_of(staging / _FILES)
            _write_manifest(staging, manifest)
            with self._moving():
                if _holds(home, manifest):
                    shutil.rmtree(staging)
                else:
                    if os.path.lexists(home / _RECORD):
                        self._set_aside(home)
                    elif home.exists():
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
        with partial.open("w", encoding="utf-8") as stream:
            json.dump(record.model_dump(mode="json"), stream, indent=1)
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(home / _RECORD)

    def fetch(self, ref: ArtifactRef) -> Path:
        """See `Store.fetch`. The folder itself, not a copy."""
        stage, key = ref.uri.removeprefix("aot://").split("/")
        home = self._home(stage, key)
        manifest = _told_manifest(home)
        if manifest is None and self.find(stage, key) is not None:
            manifest = _told_manifest(home)  # mended
        if manifest is None:
            raise StoreError(
                f"artifact {ref.uri} is not in {self.root}; run its campaign again, which makes what is missing"
            )
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
        for stage, key in self.keys():
            try:
                yield StageRecord.model_validate_json(plain_bytes(self._home(stage, key) / _RECORD))
            except (OSError, ValueError) as error:
                told = f"its record cannot be read ({_first_line(error)})"
                logger.warning("%s; skipped, `aot store verify` repairs it", Damage(stage, key, told))

    def delete(self, record: StageRecord) -> int:
        """See `Store.delete`."""
        home = self._home(record.stage, record.key)
        (home / _RECORD).unlink(missing_ok=True)
        return _remove(home)

    def sweep(self, older_than: float) -> int:
        """See `Store.sweep`."""
        before = time.time() - older_than
        loose = (home for home in self.root.glob("[!.]*/*") if not os.path.lexists(home / _RECORD))
        return sum(_remove(home) for home in loose if _last_written(home) < before)

    def link(self, ref: ArtifactRef, path: str, seconds: int) -> str:  # noqa: ARG002 - a file's link does not expire
        """See `Store.link`."""
        return (self.fetch(ref) / path).as_uri()

    @contextmanager
    def _moving(self) -> Generator[None]:
        """Held briefly while a folder is moved into or out of its place, since `find` takes no stage's lock."""
        folder = self.root / ".locks"
        folder.mkdir(exist_ok=True)
        with FileLock(folder / "moving.lock"):
            yield

    def _set_aside(self, home: Path) -> Path:
        """Move a stage's folder to where nothing looks for it; returns where it lies."""
        stage = home.parent.name
        aside = self.root / _DAMAGED / stage / f"{home.name}-{datetime.now(UTC):%Y%m%dT%H%M%S.%f}"
        aside.parent.mkdir(parents=True, exist_ok=True)
        home.rename(aside)
        return aside

    def _sweep(self, stage: str) -> None:
        """Remove what killed processes left half copied, an hour after their last write."""
        for leftover in (self.root / stage).glob(".incoming-*"):
            if _last_written(leftover) < time.time() - _STALE_SECONDS:
                shutil.rmtree(leftover, ignore_errors=True)

    def _home(self, stage: str, key: str) -> Path:
        return self.root / stage / key


def _holds(home: Path, manifest: Manifest) -> bool:
    """Whether an artifact stands there whole, with these contents."""
    try:
        return _told_manifest(home) == manifest == manifest_of(home / _FILES)
    except (OSError, ValueError):
        return False


def _told_manifest(home: Path) -> Manifest | None:
    """The manifest as it was written; None where there is none that can be read."""
    try:
        return Manifest.model_validate_json(plain_bytes(home / _MANIFEST))
    except (OSError, ValueError):
        return None


def _write_manifest(home: Path, manifest: Manifest) -> None:
    partial = home / (_MANIFEST + ".partial")
    partial.write_text(manifest.model_dump_json(indent=1), encoding="utf-8")
    partial.replace(home / _MANIFEST)


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]


def _last_written(folder: Path) -> float:
    """When anything in a folder was last written (seconds since the epoch).

    A folder's own time does not move while a large file is copied into it. What vanishes meanwhile is in use: that
    counts as written now.
    """
    try:
        return max(path.lstat().st_mtime for path in (folder, *folder.rglob("*")))
    except FileNotFoundError:
        return time.time()


def _remove(folder: Path) -> int:
    """Delete a folder; returns the bytes of its files."""
    freed = sum(path.lstat().st_size for path in folder.rglob("*") if not path.is_dir())
    shutil.rmtree(folder, ignore_errors=True)
    return freed
