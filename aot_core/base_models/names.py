"""Base models by name: shipped with this package, a folder, or a hub name. Imports without torch."""

import re
from pathlib import Path

from aot_core.contracts.paths import local_path

SHIPPED = Path(__file__).parent


_TELLING = ("model_index.json", "config.json", "adapter_config.json", "model", "adapter")
"""A diffusers pipeline's file, a transformers model's, an adapter's, and the folders in an artifact of a trained model:
one of these makes a folder a model's."""
_MOST_SHOWN = 120


class UnknownModelError(ValueError):
    """A model folder that is not there, or a name that nothing can be loaded from."""


def model_folder(name: str) -> Path | None:
    """The folder of a shipped model or of a local path; None for a hub name (`owner/model`).

    Raises UnknownModelError, and never asks a hub, when `name` looks like a path or a shipped model and is not there,
    or is a folder that holds neither a model nor an artifact of one. `owner/model` is a hub name unless a folder of
    that name exists.
    """
    if re.fullmatch(r"aot-[a-z0-9-]+", name):
        folder = SHIPPED / name
        if not (folder / "model_index.json").is_file() and not (folder / "config.json").is_file():
            raise UnknownModelError(f"model {name!r} is not shipped with this build; make it with `make base-models`")
        return folder
    folder = _existing(name)
    if folder is not None:
        if not any((folder / name).exists() for name in _TELLING):
            raise UnknownModelError(
                f"model folder {name!r} holds no model (neither {_TELLING[0]} nor {_TELLING[1]} is there); give a "
                "folder that `save_pretrained` has written"
            )
        return folder
    if name.startswith((".", "/", "~")) or not re.fullmatch(r"[\w.-]{1,96}/[\w.-]{1,96}", name):
        raise UnknownModelError(
            f"model folder {name[:_MOST_SHOWN]!r} does not exist; give a folder that does, a hub name `owner/model`, "
            f"or one of {', '.join(sorted(p.name for p in SHIPPED.glob('aot-*'))) or 'the shipped models'}"
        )
    return None


def _existing(name: str) -> Path | None:
    """The folder of that name; None where there is none, also for a name that no file system takes."""
    try:
        folder = local_path(name)
        return folder.resolve() if name and folder.is_dir() else None
    except (OSError, ValueError):
        return None
