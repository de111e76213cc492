"""Hashes of folders: the manifest names every file with its size and sha256, and its own sha256 names the folder."""

import hashlib
from pathlib import Path

from pydantic import Field

from aot_core.contracts.base import Frozen, sha256_of


class FileEntry(Frozen):
    path: str
    """Relative to the folder, with forward slashes."""
    bytes: int = Field(ge=0)
    sha256: str


class Manifest(Frozen):
    """All files of an artifact, sorted by path."""

    files: tuple[FileEntry, ...]

    @property
    def sha256(self) -> str:
        return sha256_of(self)


def file_sha256(path: Path) -> str:
    """The sha256 (64 hex digits) of a file, read in blocks."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def plain_bytes(path: Path) -> bytes:
    """A file's contents. Raises ValueError for what is none: reading a pipe would wait for ever."""
    if not path.is_file():
        raise ValueError(
            f"{path} is no file ({'a link that leads nowhere' if path.is_symlink() else 'a pipe or device'})"
        )
    return path.read_bytes()


def manifest_of(folder: Path) -> Manifest:
    """Hash every file below a folder.

    Raises ValueError on a link that leads out of it or nowhere, and on a pipe, a socket or a device.
    """
    root = folder.resolve()
    entries: list[FileEntry] = []
    for path in sorted(p for p in root.rglob("*") if p.is_symlink() or not p.is_dir()):
        if not _stays_in(root, path):
            raise ValueError(f"{path} is a link out of {folder}; copy the file into the folder")
        if path.is_dir():
            continue  # a link to a folder of this folder: its files are met where they are
        if not path.is_file():
            what = "a link that leads nowhere" if path.is_symlink() else "a pipe, a socket or a device"
            raise ValueError(f"{path} is {what}; take it out of the folder")
        relative = path.relative_to(root).as_posix()
        entries.append(FileEntry(path=relative, bytes=path.stat().st_size, sha256=file_sha256(path)))
    return Manifest(files=tuple(entries))


def _stays_in(root: Path, path: Path) -> bool:
    try:
        return path.resolve().is_relative_to(root)
    except (OSError, RuntimeError):  # links in a circle
        return False
