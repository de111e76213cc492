"""The body of `aot export`: a registered Defender as a plain transformers folder, which `transformers serve` or vLLM
can serve as it is, or its adapter alone.

registry version -> its weights (checked by hash) -> adapter merged into its base in float32, where it is one -> folder
"""

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from aot_core.engine.identity import check_model
from aot_core.tracking import registry


class ExportError(ValueError):
    """A version that is not there, or a folder that may not be written. The message says which."""


class Exported(NamedTuple):
    """What was written."""

    number: str
    """The version's."""
    told: str
    """What became of the weights, and how they are served as they were trained."""


def export_defender(uri: str, model: str, version: str, output: Path, *, adapter: bool = False) -> Exported:
    """Write a registered version's model, processor and chat template to a folder, or its adapter alone.

    Args:
        version: a number, or an alias such as `champion`.
        output: made; must be empty where it exists.
        adapter: leave the base out: the folder is peft's, as it was trained.

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
        if packed.config["kind"] == "model" and adapter:
            raise ExportError(f"{model} version {number} has whole weights and no adapter; leave --adapter out")
        if packed.config["kind"] == "model":
            shutil.copytree(packed.weights, ready)
            told = "its weights as they were registered"
        elif adapter:
            shutil.copytree(packed.weights, ready)
            told = _of_adapter(packed, output)
        else:
            told = _merge(packed, ready)
        if output.exists():
            output.rmdir()
        ready.rename(output)
    return Exported(number, told)


def _by_alias(uri: str, alias: str, model: str) -> tuple[str, dict[str, str]] | None:
    return registry.get_alias(uri, alias, model)


def _merge(packed: registry.Packed, ready: Path) -> str:
    """The base with the adapter merged in, and its processor; what was done."""
    from aot_core.defender.answering import Defender

    base, dtype = packed.config["base"], packed.config["dtype"]
    check_model(base, packed.config.get("base_sha256", ""))
    merged = Defender.load(base, packed.weights, "cpu", "float32")
    merged.model.save_pretrained(ready)
    merged.processor.save_pretrained(ready)
    told = f"its adapter merged into {base} in float32"
    if dtype != "float32":
        told += (
            f"; {dtype}, in which it was trained beside its base, would round most of it away: serve the folder in "
            "float32 (`vllm serve --dtype float32`), or export the adapter alone (--adapter)"
        )
    return told


def _of_adapter(packed: registry.Packed, output: Path) -> str:
    """How an adapter is served that was exported alone."""
    from aot_core.rl.adapters import max_rank, read_adapter

    rank, of_language = read_adapter(packed.weights)
    base, most = packed.config["base"], max_rank(rank)
    told = f"its adapter alone, of rank {rank}, for {base}"
    if not of_language or most is None:
        why = "of the vision tower" if not of_language else f"of a rank above {rank - 1}"
        return f"{told}; vLLM applies no adapter {why}: export without --adapter to serve it there"
    return (
        f"{told}; `vllm serve BASE --dtype {packed.config['dtype']} --enable-lora --max-lora-rank {most} "
        f"--lora-modules defender={output}` serves it as `defender`"
    )
