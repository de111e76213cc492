"""LoRA adapters beside weights in half precision, for servers: kept apart, or merged in float32.

Merged in half precision, most of what a small adapter has learned is rounded away (`aot_core.rl.precision`).
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

ADAPTER_FILE = "adapter_model.safetensors"
_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""What vLLM's `--max-lora-rank` may be (its `MaxLoRARanks`)."""
_LANGUAGE = ".language_model."


class ApartAdapter(NamedTuple):
    """A peft folder that a server puts on its base."""

    folder: Path
    max_rank: int
    """`--max-lora-rank`."""


def of_language_alone(tensors: Mapping[str, Tensor]) -> bool:
    """Whether an adapter changes the language model and nothing else. vLLM leaves out what an adapter changes of the
    vision tower, without a word.

    Args:
        tensors: as in peft's file. A module whose B is 0 is not changed.
    """
    return not any(
        bool(tensor.any())
        for name, tensor in tensors.items()
        if ".lora_A." not in name and not (_LANGUAGE in name and ".lora_B." in name)
    )


def max_rank(rank: int) -> int | None:
    """The least `--max-lora-rank` that holds an adapter's rank; None where there is none."""
    return next((most for most in _RANKS if rank <= most), None)


def read_adapter(folder: Path) -> tuple[int, bool]:
    """Rank of a peft folder's adapter, and whether it changes the language model alone."""
    from safetensors.torch import load_file

    rank = int(json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))["r"])
    return rank, of_language_alone(load_file(folder / ADAPTER_FILE))


def write_for_server(model: Any, folder: Path, adapter: Path) -> ApartAdapter | None:
    """Write whole weights that a server can serve; with an adapter where it can read that.

    A peft model whose adapter changes the language model alone is written as base and adapter. Any other is moved to
    the CPU and merged in float32.

    Args:
        model: a transformers model, or a peft model on top of one. It is of no further use.
        folder: for the weights; `adapter` for the adapter.

    Returns:
        The adapter; None where the weights are all there is.
    """
    if not hasattr(model, "merge_and_unload"):
        model.save_pretrained(folder)
        return None
    from peft import get_peft_model_state_dict
    from safetensors.torch import save_file

    (config,) = model.peft_config.values()
    tensors, rank = get_peft_model_state_dict(model, save_embedding_layers=False), max_rank(config.r)
    if rank is None or not of_language_alone(tensors):
        model.to("cpu").float().merge_and_unload().save_pretrained(folder)
        return None
    model.save_pretrained(str(adapter), save_embedding_layers=False)
    of_language = {name: tensor.contiguous() for name, tensor in tensors.items() if _LANGUAGE in name}
    save_file(of_language, adapter / ADAPTER_FILE, {"format": "pt"})
    model.unload().save_pretrained(folder)
    return ApartAdapter(adapter, rank)
