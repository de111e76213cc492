"""Paths as people write them. Imports nothing: the command line asks before all else."""

import os
from pathlib import Path


def local_path(text: str | Path) -> Path:
    """A path with `~` and `~user` replaced; a user that is not known stays as it is, and is then a folder's name."""
    return Path(os.path.expanduser(text))  # noqa: PTH111 - Path.expanduser raises RuntimeError for an unknown user
