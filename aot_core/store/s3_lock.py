"""A lock in a bucket: an object that only one process can create, renewed while its holder lives.

The holder rewrites it every third of a lease. A waiting process takes the lock over once it has seen the same ETag for
a whole lease by its own clock, so no two machines' clocks are ever compared. Creating, renewing and taking over are
conditional writes, decided by the server. A store that ignores the condition would let two in: that is tried once.
"""

import json
import logging
import os
import platform
import threading
import time
import uuid
from collections.abc import Generator
from contextlib import contextmanager

from aot_core.store.protocol import StoreError
from aot_core.store.s3_client import S3Bucket

logger = logging.getLogger(__name__)

_PROBE = ".locks/.probe"
_MAX_WAIT = 5.0


@contextmanager
def hold(bucket: S3Bucket, name: str) -> Generator[None]:
    """Wait for `.locks/NAME`, hold it, and release it."""
    key, lease = f".locks/{name}", bucket.settings.lease_seconds
    etag = _acquire(bucket, key, lease)
    ended = threading.Event()
    keeper = _Keeper(bucket, key, etag, lease / 3, ended)
    keeper.start()
    try:
        yield
    finally:
        ended.set()
        keeper.join()
        held = bucket.get(key)
        if held is not None and held[1] == keeper.etag:
            bucket.delete([key])


def demand_conditional_writes(bucket: S3Bucket) -> None:
    """Raises StoreError where the store overwrites an object that a condition protects."""
    bucket.put_if(_PROBE, b"{}", None)
    if bucket.put_if(_PROBE, b"{}", None) is not None or bucket.put_if(_PROBE, b"{}", '"0"') is not None:
        raise StoreError(
            f"store {bucket}: it ignores conditional writes (If-None-Match, If-Match), so it cannot lock; use AWS S3, "
            "a current SeaweedFS or RustFS, or a folder"
        )


def _acquire(bucket: S3Bucket, key: str, lease: float) -> str:
    seen, since, wait, told = "", time.monotonic(), 0.1, False
    while True:
        mine, asked = _body(), time.monotonic()
        etag = bucket.put_if(key, mine, None)
        if etag is not None:
            return etag
        held = bucket.get(key)
        if held is None:
            continue
        body, current = held
        if body == mine:
            return current  # the server took the write, and its answer was lost
        if current != seen or time.monotonic() - asked > lease / 3:  # while the server is away nobody can renew
            seen, since = current, time.monotonic()
        elif time.monotonic() - since > lease:
            etag = bucket.put_if(key, _body(), current)
            if etag is not None:
                logger.warning("took over %s: its holder (%s) has been silent for %.0f s", key, body.decode(), lease)
                return etag
        elif not told and time.monotonic() - since > 2 * lease / 3:
            logger.info("waiting for %s, held by %s", key, body.decode())
            told = True
        time.sleep(wait)
        wait = min(wait * 1.5, _MAX_WAIT, lease / 4)


def _body() -> bytes:
    """Who holds it; a new one every time, so that every renewal has another ETag."""
    return json.dumps({"host": platform.node(), "pid": os.getpid(), "token": uuid.uuid4().hex}).encode()


class _Keeper(threading.Thread):
    """Renews a lock until told to end."""

    def __init__(self, bucket: S3Bucket, key: str, etag: str, every: float, ended: threading.Event) -> None:
        super().__init__(name=f"lock {key}", daemon=True)
        self.etag = etag
        self._bucket, self._lock_key, self._every, self._ended = bucket, key, every, ended

    def run(self) -> None:
        while not self._ended.wait(self._every):
            mine = _body()
            try:
                renewed = self._bucket.put_if(self._lock_key, mine, self.etag)
                if renewed is None and (held := self._bucket.get(self._lock_key)) and held[0] == mine:
                    renewed = held[1]  # the server took the write, and its answer was lost
            except StoreError:
                logger.exception("the lock %s could not be renewed; trying again", self._lock_key)
                continue
            if renewed is None:
                # This process was stopped for a whole lease. What it makes is the same as what the other makes.
                logger.error("lost the lock %s to another process; the stage may run twice", self._lock_key)
                return
            self.etag = renewed
