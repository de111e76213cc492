"""A store in a bucket: `PREFIX/STAGE/KEY/{record.json, SHA256/{files/, objects.json, manifest.json}}`.

SHA256 is the manifest's: contents never overwrite other contents. A put sends the files, looks that all of them
arrived, notes each one's ETag (`objects.json`), writes the manifest; `seal` writes the record. `find` compares one
listing with the ETags; `fetch` downloads into a local cache and compares every byte's hash.
"""

import json
import logging
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path, PurePosixPath

from aot_core.contracts.artifact import ArtifactRef, StageRecord
from aot_core.contracts.store import S3Settings
from aot_core.store.manifest import Manifest, manifest_of
from aot_core.store.protocol import Damage, StoreError
from aot_core.store.s3_client import S3Bucket
from aot_core.store.s3_lock import demand_conditional_writes, hold

logger = logging.getLogger(__name__)

_FILES, _OBJECTS, _MANIFEST, _RECORD = "files/", "objects.json", "manifest.json", "record.json"
_DAMAGED = ".damaged"


class S3Store:
    """Immutable folders in a bucket, and a cache of those that were fetched."""

    def __init__(self, uri: str, settings: S3Settings, cache: Path | None = None) -> None:
        bucket, _, prefix = uri.removeprefix("s3://").partition("/")
        if not bucket or "?" in uri or ".." in PurePosixPath(prefix).parts:
            raise StoreError(f"store {uri!r}: write s3://BUCKET/PREFIX; the endpoint belongs into run.s3.endpoint_url")
        self.bucket = S3Bucket(bucket, prefix, settings)
        self.cache = cache or default_cache()
        self._trusted, self._trust = False, threading.Lock()

    def __str__(self) -> str:
        return str(self.bucket)

    def find(self, stage: str, key: str) -> StageRecord | None:
        """See `Store.find`. One listing: an object that changed has another ETag, and the stage runs again."""
        found = self.look(stage, key)
        if isinstance(found, Damage):
            logger.warning("%s; %s", found, self.repair(found))
        return found if isinstance(found, StageRecord) else None

    def look(self, stage: str, key: str, *, thorough: bool = False) -> StageRecord | Damage | None:
        """See `Store.look`. Thorough: every object is downloaded, past the cache."""
        home = f"{stage}/{key}/"
        sealed = self.bucket.get(home + _RECORD)
        if sealed is None:
            return None
        record = _parsed(sealed[0])
        if record is None or (record.stage, record.key) != (stage, key):
            return Damage(stage, key, "its record cannot be read, or is another stage's")
        noted = self.bucket.get(f"{home}{record.artifact.sha256}/{_OBJECTS}")
        manifest = self._manifest(record.artifact)
        if noted is None or manifest is None:
            return Damage(stage, key, "its manifest, or the list of its objects, is missing or damaged")
        try:
            etags = json.loads(noted[0])
        except ValueError:
            return Damage(stage, key, "the list of its objects cannot be read")
        if self._etags(f"{home}{record.artifact.sha256}/") != etags:
            return Damage(stage, key, "its objects are not those that were put there")
        if thorough:
            with tempfile.TemporaryDirectory(prefix="aot-verify-") as folder:
                if not self._arrive(record.artifact, manifest, Path(folder)):
                    return Damage(stage, key, "its objects have rotten: their bytes are not those that were put there")
        return record

    def repair(self, damage: Damage) -> str:
        """See `Store.repair`."""
        home = f"{damage.stage}/{damage.key}/"
        objects = [item.key for item in self.bucket.list(home)]
        objects.sort(key=lambda key: key != home + _RECORD)  # the record first: without it the stage is absent
        aside = f"{_DAMAGED}/{datetime.now(UTC):%Y%m%dT%H%M%S.%f}/"
        self.bucket.move(objects, aside)
        return f"set aside below {self.bucket}/{aside}{home}; it counts as absent and is made again"

    def keys(self) -> Iterator[tuple[str, str]]:
        """See `Store.keys`. Also of what is unfinished: only `look` would tell."""
        for stage in self._stages():
            for key in self.bucket.folders(stage + "/"):
                yield stage, key

    def put(self, stage: str, key: str, folder: Path) -> ArtifactRef:
        """See `Store.put`. Raises StoreError where not every file arrived whole."""
        manifest = manifest_of(folder)
        home = f"{stage}/{key}/{manifest.sha256}/"
        self.bucket.delete(item.key for item in self.bucket.list(home))  # a damaged or unfinished predecessor
        self.bucket.upload((folder / entry.path, home + _FILES + entry.path) for entry in manifest.files)
        arrived = {item.key.removeprefix(home + _FILES): item.bytes for item in self.bucket.list(home + _FILES)}
        wrong = sorted(entry.path for entry in manifest.files if arrived.get(entry.path) != entry.bytes)
        if wrong:
            raise StoreError(f"store {self.bucket}: {len(wrong)} files did not arrive whole, {wrong[0]!r} the first")
        self.bucket.put(home + _OBJECTS, self._noted(home))
        self.bucket.put(home + _MANIFEST, manifest.model_dump_json(indent=1).encode())
        return ArtifactRef(uri=f"aot://{stage}/{key}", sha256=manifest.sha256)

    def seal(self, record: StageRecord) -> None:
        """See `Store.seal`. One object is written whole or not at all."""
        self.bucket.put(f"{record.stage}/{record.key}/{_RECORD}", record.model_dump_json(indent=1).encode())

    def fetch(self, ref: ArtifactRef) -> Path:
        """See `Store.fetch`. A folder of the cache, every file's hash compared.

        What arrives damaged twice is damaged in the bucket: it is set aside, so that the campaign makes it again.
        """
        manifest = self._manifest(ref)
        if manifest is None:
            raise StoreError(self._why_absent(ref))
        cached = self.cache / ref.sha256
        if cached.is_dir() and manifest_of(cached) == manifest:
            os.utime(cached)
            return cached
        shutil.rmtree(cached, ignore_errors=True)
        for _ in range(2):
            arrived = self._download(ref, manifest)
            if arrived is not None:
                return arrived
        stage, key = _path(ref).split("/")
        done = self.repair(Damage(stage, key, "its bytes are not those that were put there"))
        raise StoreError(f"artifact {ref.uri} is damaged in {self.bucket}: {done}: run its campaign again")

    def lock(self, stage: str, key: str) -> AbstractContextManager[None]:
        """See `Store.lock`. A lock whose holder died is free after a lease (`run.s3.lease_seconds`)."""
        with self._trust:
            if not self._trusted:
                demand_conditional_writes(self.bucket)
                self._trusted = True
        return hold(self.bucket, f"{stage}-{key}")

    def records(self) -> Iterator[StageRecord]:
        """See `Store.records`."""
        for stage, key in self.keys():
            sealed = self.bucket.get(f"{stage}/{key}/{_RECORD}")
            record = _parsed(sealed[0]) if sealed else None
            if record is not None:
                yield record
            elif sealed is not None:
                damage = Damage(stage, key, "its record cannot be read")
                logger.warning("%s; skipped, `aot store verify` repairs it", damage)

    def delete(self, record: StageRecord) -> int:
        """See `Store.delete`."""
        home = f"{record.stage}/{record.key}/"
        self.bucket.delete([home + _RECORD])
        rest = list(self.bucket.list(home))
        self.bucket.delete(item.key for item in rest)
        return sum(item.bytes for item in rest)

    def sweep(self, older_than: float) -> int:
        """See `Store.sweep`. Also begun uploads, and what the local cache has not been asked for so long."""
        before = datetime.now(UTC) - timedelta(seconds=older_than)
        self.bucket.abort_uploads(before)
        freed = 0
        for stage, key in self.keys():
            sealed = self.bucket.get(f"{stage}/{key}/{_RECORD}")
            record = _parsed(sealed[0]) if sealed else None
            if sealed and record is None:
                continue  # damaged: set aside by `find`, never deleted
            for version in self.bucket.folders(f"{stage}/{key}/"):
                items = list(self.bucket.list(f"{stage}/{key}/{version}/"))
                kept = record is not None and version == record.artifact.sha256
                if items and not kept and max(item.modified for item in items) < before:
                    self.bucket.delete(item.key for item in items)
                    freed += sum(item.bytes for item in items)
        for cached in self.cache.glob("*"):
            with suppress(FileNotFoundError):  # another process has swept it
                if cached.stat().st_mtime < time.time() - older_than:
                    shutil.rmtree(cached, ignore_errors=True)
        return freed

    def link(self, ref: ArtifactRef, path: str, seconds: int) -> str:
        """See `Store.link`. Presigned: it needs no credentials and expires."""
        return self.bucket.presign(f"{_path(ref)}/{ref.sha256}/{_FILES}{path}", seconds)

    def _download(self, ref: ArtifactRef, manifest: Manifest) -> Path | None:
        """Into the cache, by a rename; None where the bytes are not the manifest's."""
        self.cache.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=".incoming-", dir=self.cache))
        try:
            if not self._arrive(ref, manifest, staging):
                return None
            target = self.cache / ref.sha256
            try:
                staging.rename(target)
            except OSError:
                if not target.is_dir():  # else another process was faster, with the same bytes
                    raise
            return target
        finally:
            shutil.rmtree(staging, ignore_errors=True)

    def _arrive(self, ref: ArtifactRef, manifest: Manifest, folder: Path) -> bool:
        """Download an artifact's files into a folder; whether they are the manifest's."""
        wanted = [(entry.path, (folder / entry.path).resolve()) for entry in manifest.files]
        for path, file in wanted:
            if not file.is_relative_to(folder.resolve()):
                raise StoreError(f"artifact {ref.uri}: its manifest names {path!r}, outside of the artifact")
            file.parent.mkdir(parents=True, exist_ok=True)
        home = f"{_path(ref)}/{ref.sha256}/{_FILES}"
        whole = self.bucket.download((home + path, file) for path, file in wanted)
        return whole and manifest_of(folder) == manifest

    def _manifest(self, ref: ArtifactRef) -> Manifest | None:
        """The manifest that a reference names, None where it is absent or not that one."""
        found = self.bucket.get(f"{_path(ref)}/{ref.sha256}/{_MANIFEST}")
        try:
            manifest = Manifest.model_validate_json(found[0]) if found else None
        except ValueError:
            return None
        return manifest if manifest is not None and manifest.sha256 == ref.sha256 else None

    def _why_absent(self, ref: ArtifactRef) -> str:
        # Some servers go on listing a deleted folder for a while, so an object has to tell.
        home = f"{_path(ref)}/"
        others = [sha256 for sha256 in self.bucket.folders(home) if self.bucket.get(f"{home}{sha256}/{_MANIFEST}")]
        if others:
            return (
                f"artifact {ref.uri} is not the one referred to (sha256 {others[0][:12]}, wanted {ref.sha256[:12]}); "
                "it was made again since: run the campaign again"
            )
        return f"artifact {ref.uri} is not in {self.bucket}; run its campaign again, which makes what is missing"

    def _etags(self, home: str) -> dict[str, str]:
        return {item.key.removeprefix(home): item.etag for item in self.bucket.list(home + _FILES)}

    def _noted(self, home: str) -> bytes:
        """What `objects.json` says of an artifact's objects as they are."""
        return json.dumps(self._etags(home)).encode()

    def _stages(self) -> Iterator[str]:
        return (name for name in self.bucket.folders() if not name.startswith("."))


def default_cache() -> Path:
    """`AOT_CACHE`, else a folder of the user's cache."""
    named = os.environ.get("AOT_CACHE")
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(named or Path(base) / "aot").expanduser()


def _path(ref: ArtifactRef) -> str:
    return ref.uri.removeprefix("aot://")


def _parsed(sealed: bytes) -> StageRecord | None:
    """A record; None where it cannot be read."""
    try:
        return StageRecord.model_validate_json(sealed)
    except ValueError:
        return None
