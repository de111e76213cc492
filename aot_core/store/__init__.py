"""Artifact stores behind one protocol. `open_store` picks one by URI."""

from functools import lru_cache

from aot_core.contracts.explaining import without_credentials
from aot_core.contracts.store import S3Settings
from aot_core.contracts.texts import check_store
from aot_core.store.local import LocalStore
from aot_core.store.protocol import Damage, Store, StoreError


def open_store(uri: str, s3: S3Settings | None = None) -> Store:
    """The store at a folder path, a `file://` URI or `s3://BUCKET/PREFIX`.

    Raises StoreError for a scheme that no store serves, and for a bucket that is not there or may not be used.
    """
    try:
        check_store(uri)
    except ValueError as error:
        raise StoreError(f"store {without_credentials(repr(uri))}: {error}") from error
    scheme, separator, rest = uri.partition("://")
    if not separator:
        return LocalStore(uri)
    if scheme == "file":
        return LocalStore(rest)
    return _open_s3(uri, (s3 or S3Settings()).model_dump_json())


@lru_cache(maxsize=16)
def _open_s3(uri: str, settings: str) -> Store:
    """Once a process: a client is thread-safe, and takes a while to make."""
    from aot_core.store.s3 import S3Store  # boto3 takes a third of a second to import

    store = S3Store(uri, S3Settings.model_validate_json(settings))
    store.bucket.check()
    return store


__all__ = ["Damage", "LocalStore", "Store", "StoreError", "open_store"]
