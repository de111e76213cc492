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


def manifest_of(folder: Path) -> Manifest:
    """Hash every file below a folder. Raises ValueError on a link that leads out of it."""
    root = folder.resolve()
    entries: list[FileEntry] = []
    for path in sorted(p for p in root.rglob("*") if not p.is_dir()):
        if not path.resolve().is_relative_to(root):
            raise ValueError(f"{path} is a link out of {folder}; copy the file into the folder")
        relative = path.relative_to(root).as_posix()
        entries.append(FileEntry(path=relative, bytes=path.stat().st_size, sha256=file_sha256(path)))
    return Manifest(files=tuple(entries))
