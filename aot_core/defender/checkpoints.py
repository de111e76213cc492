"""A Defender's artifact folder: `model/` (all weights and the processor) or `adapter/` (LoRA, to be put on the base).

Stages write it with `save`; they, the evaluation and all others read it with `load_defender`; training
goes on from it with `load_trainable`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from peft import LoraConfig, PeftModel, get_peft_model, prepare_model_for_kbit_training
from torch import Tensor

from aot_core.contracts.errors import CheckpointError
from aot_core.contracts.learning import DefenderModelSettings, DType
from aot_core.defender.answering import Defender
from aot_core.defender.loading import Model, Processor, load_model, load_processor

MODEL, ADAPTER = "model", "adapter"


def load_defender(
    folder: Path | None,
    base: str,
    device: str = "cpu",
    dtype: DType = "float32",
    *,
    batch_size: int = 64,
    max_new_tokens: int = 16,
    merge: bool = False,
    offload: bool = False,
) -> Defender:
    """The Defender of an artifact folder, or the base itself where `folder` is None.

    Args:
        base: the base model's name or folder; used where the artifact holds an adapter.
        merge: see `Defender.load`.
        offload: see `Defender`.

    Raises CheckpointError where the folder holds neither `model/` nor `adapter/`.
    """
    settings: dict[str, Any] = {
        "device": device,
        "dtype": dtype,
        "batch_size": batch_size,
        "max_new_tokens": max_new_tokens,
        "offload": offload,
    }
    if folder is None:
        return Defender.load(base, **settings)
    if _kind(folder) == MODEL:
        return Defender.load(str(folder / MODEL), **settings)
    return Defender.load(base, folder / ADAPTER, merge=merge, **settings)


def load_trainable(
    folder: Path | None, base: str, settings: DefenderModelSettings, device: str
) -> tuple[Model, Processor]:
    """The model to go on training: an adapter stays the same adapter through the rounds, so that it never stacks.

    A folder with an adapter and settings without LoRA give the merged model, all its weights trained. The other way
    round is a CheckpointError: the new adapter would belong to weights that are not the base's.
    """
    how = {"attention": settings.attention, "quantization": settings.quantization}
    if settings.lora is None:
        if folder is not None and _kind(folder) == ADAPTER:
            merged = load_defender(folder, base, device, settings.dtype, merge=True)
            return merged.model, merged.processor
        name = base if folder is None else str(folder / MODEL)
        return load_model(name, settings.dtype, device, **how), load_processor(name)
    if folder is not None and _kind(folder) == MODEL:
        raise CheckpointError(
            f"{folder} holds a full model, but the config trains a LoRA adapter on the base; set model.lora in "
            "warm_start_defender and defender_round alike"
        )
    model = load_model(base, settings.dtype, device, **how)
    if settings.quantization is not None:
        # The norms in float32, and gradients for what the adapters are given.
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=settings.gradient_checkpointing)
    if folder is not None:
        adapted = PeftModel.from_pretrained(model, str(folder / ADAPTER), is_trainable=True)
    else:
        lora, targets = settings.lora, settings.lora.target_modules
        adapted = get_peft_model(
            model,
            LoraConfig(
                r=lora.rank,
                lora_alpha=lora.alpha,
                lora_dropout=lora.dropout,
                target_modules=targets if isinstance(targets, str) else list(targets),
                task_type="CAUSAL_LM",
            ),
        )
    return adapted, load_processor(base)


def save(
    model: Model, processor: Processor, output: Path, base_name: str, weights: Mapping[str, Tensor] | None = None
) -> None:
    """Write `model/` or `adapter/` (safetensors) into an artifact's folder.

    Args:
        base_name: the name that the adapter's config gives as its base: a name, not a place, so that the same training
            gives the same bytes on every machine.
        weights: all of them, where `model` holds only a process's share.
    """
    given: dict[str, Any] = {} if weights is None else {"state_dict": weights}
    if isinstance(model, PeftModel):
        for config in model.peft_config.values():
            config.base_model_name_or_path = base_name
        # "auto" would ask the hub whether the vocabulary has grown: here it never does.
        model.save_pretrained(str(output / ADAPTER), save_embedding_layers=False, **given)
        # peft adds a card with versions and places of its own; the artifact's record has them.
        (output / ADAPTER / "README.md").unlink(missing_ok=True)
        return
    model.save_pretrained(output / MODEL, **given)
    processor.save_pretrained(output / MODEL)


def _kind(folder: Path) -> str:
    for kind in (MODEL, ADAPTER):
        if (folder / kind).is_dir():
            return kind
    raise CheckpointError(
        f"{folder} holds neither {MODEL}/ nor {ADAPTER}/; give the artifact of warm_start_defender or defender_round"
    )
