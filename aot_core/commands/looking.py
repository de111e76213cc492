"""The home and the store that a command reads. A misspelt one is refused: opening it would create it, empty."""

from aot_core.contracts.paths import local_path
from aot_core.contracts.store import S3Settings
from aot_core.home import Home
from aot_core.store import Store, open_store


def demand_home(home: Home) -> None:
    """Raises ValueError where the home does not exist."""
    if not home.root.is_dir():
        raise ValueError(f"home {home.root} does not exist; name the home of a campaign with --home")


def existing_store(home: Home, uri: str | None, s3: S3Settings | None = None) -> Store:
    """The store at `uri`, or the home's own.

    Raises ValueError where it is a folder that does not exist, and StoreError as `open_store`.
    """
    if uri is None:
        if not home.store.is_dir():
            raise ValueError(f"{home.root} holds no store; name the home of a campaign with --home, or --store")
        return open_store(str(home.store), s3)
    scheme, separator, rest = uri.partition("://")
    folder = rest if separator and scheme == "file" else uri
    if (not separator or scheme == "file") and not local_path(folder).is_dir():
        what = "is a file" if local_path(folder).exists() else "does not exist"
        raise ValueError(f"store {folder!r} {what}; name the folder of a store, or s3://BUCKET/PREFIX")
    return open_store(uri, s3)
