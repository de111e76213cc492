"""The body of `aot export`: a registered Defender as a plain transformers folder, which `transformers serve` or vLLM
can serve as it is.

registry version -> its weights (checked by hash) -> adapter merged into its base, where it is one -> folder
"""

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

from aot_core.engine.identity import check_model
from aot_core.tracking import registry


class ExportError(ValueError):
    """A version that is not there, or a folder that may not be written. The message says which."""


def export_defender(uri: str, model: str, version: str, output: Path) -> str:
    """Write a registered version's model, processor and chat template to a folder; returns the version's number.

    Args:
        version: a number, or an alias such as `champion`.
        output: made; must be empty where it exists.

    Raises ExportError, and ValueError where the base is not the one that the adapter was trained on.
    """
    if output.exists() and any(output.iterdir()):
        raise ExportError(f"{output} is not empty; give a new folder")
    found = (registry.get_version if version.isdigit() else _by_alias)(uri, version, model)
    if found is None:
        raise ExportError(f"{model} has no version or alias {version!r}; `aot history` shows which lead")
    number, _ = found
    output.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".aot-export-", dir=output.parent) as scratch:
        packed = registry.download(uri, number, model, Path(scratch) / "packed")
        ready = Path(scratch) / "ready"
        if packed.config["kind"] == "model":
            shutil.copytree(packed.weights, ready)
        else:
            _merge(packed, ready)
        if output.exists():
            output.rmdir()
        ready.rename(output)
    return number


def _by_alias(uri: str, alias: str, model: str) -> tuple[str, dict[str, str]] | None:
    return registry.get_alias(uri, alias, model)


def _merge(packed: registry.Packed, ready: Path) -> None:
    """The base with the adapter merged in, and its processor."""
    from aot_core.defender.answering import Defender

    check_model(packed.config["base"], packed.config.get("base_sha256", ""))
    merged = Defender.load(packed.config["base"], packed.weights, "cpu", packed.config["dtype"], merge=True)
    merged.model.save_pretrained(ready)
    merged.processor.save_pretrained(ready)
