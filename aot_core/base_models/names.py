"""Base models by name: shipped with this package, a folder, or a hub name. Imports without torch."""

import re
from pathlib import Path

SHIPPED = Path(__file__).parent


class UnknownModelError(ValueError):
    """A model folder that is not there, or a name that nothing can be loaded from."""


def model_folder(name: str) -> Path | None:
    """The folder of a shipped model or of a local path; None for a hub name (`owner/model`).

    Raises UnknownModelError, and never asks a hub, when `name` looks like a path or a shipped model and is not
    there. `owner/model` is a hub name unless a folder of that name exists.
    """
    if re.fullmatch(r"aot-[a-z0-9-]+", name):
        folder = SHIPPED / name
        if not (folder / "model_index.json").is_file() and not (folder / "config.json").is_file():
            raise UnknownModelError(f"model {name!r} is not shipped with this build; make it with `make base-models`")
        return folder
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder.resolve()
    if name.startswith((".", "/", "~")) or not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        raise UnknownModelError(
            f"model folder {name!r} does not exist; give an existing folder, a hub name `owner/model`, or one of "
            f"{', '.join(sorted(p.name for p in SHIPPED.glob('aot-*'))) or 'the shipped models'}"
        )
    return None
