"""Artifact stores behind one protocol. `open_store` picks one by URI."""

from aot_core.store.local import LocalStore
from aot_core.store.protocol import Store, StoreError


def open_store(uri: str) -> Store:
    """The store at a folder path or `file://` URI. Raises StoreError for a scheme that no store serves."""
    scheme, separator, rest = uri.partition("://")
    if not separator:
        return LocalStore(uri)
    if scheme == "file":
        return LocalStore(rest)
    raise StoreError(f"store {uri!r}: no store serves {scheme}://; give a folder or a file:// URI")


__all__ = ["LocalStore", "Store", "StoreError", "open_store"]
