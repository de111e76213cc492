"""The Attacker at work: images and instructions in, edited images out; and what training needs of an editor.

`FlowEditor` is the small surface that the trainers know: encode a condition, the flow's times and velocity,
decode, which weights learn, the reference, save. `Attacker` implements it for every pipeline that an `EditorAdapter`
drives (`EDITORS`, by the `_class_name` of a pipeline's model_index.json), and is an `Editor` (contracts.protocols) for
everybody else. Trainers never know which pipeline it is.

The reference of a KL is the Attacker that the round began with. Under LoRA it costs no second transformer: the adapter
is switched off where it has learned nothing yet (a fresh one adds zero), and otherwise to a frozen copy of the adapter
as the round found it. Switched off it would be the base: a later round would be held to an Attacker that knows nothing
of the attacks that the rounds before it found.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol, Self, cast

import torch
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from diffusers.utils import logging
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from PIL import Image
from torch import Tensor, nn

from aot_core.attacker.adapters import EDITORS, EditorAdapter, EditorFile, adapter_for, load_adapter
from aot_core.attacker.conditioning import Conditioning
from aot_core.attacker.flow_sde import ode_step
from aot_core.base_models.names import model_folder
from aot_core.contracts.errors import CheckpointError
from aot_core.contracts.learning import DType, EditorSettings, LoraSettings, ModelSettings
from aot_core.rl.precision import warn_of_merging

MODEL, ADAPTER = "model", "adapter"
"""The folders of an artifact: the whole pipeline, or a LoRA adapter to be put on the base."""
_REFERENCE = "reference"
"""peft's name of the frozen adapter; the one that learns has peft's own, "default"."""


class FlowEditor(Protocol):
    """An editor that samples a flow in a latent space. B edits; latents are (B, ...), of the editor's own shape."""

    def encode(self, images: Sequence[Image.Image], instructions: Sequence[str]) -> Conditioning: ...

    def latents(self, images: Sequence[Image.Image]) -> Tensor:
        """Clean latents of images."""
        ...

    def sigmas(self, steps: int) -> Tensor:
        """(steps + 1,) flow times from 1 down to 0."""
        ...

    def velocity(self, latents: Tensor, time: Tensor, condition: Conditioning) -> Tensor: ...

    def reference_velocity(self, latents: Tensor, time: Tensor, condition: Conditioning) -> Tensor:
        """The velocity under the weights that `hold_reference` kept."""
        ...

    def noise(self, count: int, generator: torch.Generator) -> Tensor: ...

    def decode(self, latents: Tensor, condition: Conditioning) -> list[Image.Image]: ...

    def trainable(self) -> list[nn.Parameter]: ...

    def hold_reference(self) -> None:
        """Keep the present weights as the reference of a KL."""
        ...

    def save(self, folder: Path) -> None: ...


class Attacker:
    """An image editor of the flow family (implements `FlowEditor` and `contracts.protocols.Editor`)."""

    def __init__(
        self, pipeline: Any, *, steps: int = 6, batch_size: int = 128, settings: EditorSettings | None = None
    ) -> None:
        """
        Args:
            pipeline: a diffusers pipeline of a class in `EDITORS`.
            steps: denoising steps of an edit.
            batch_size: edits made at a time.
            settings: of the big editors; None is their defaults.
        """
        if steps < 1 or batch_size < 1:
            raise ValueError(f"steps {steps} and batch_size {batch_size} must be at least 1")
        self.adapter: EditorAdapter = adapter_for(pipeline, settings)
        self.steps = steps
        self.batch_size = batch_size
        self._reference: list[Tensor] | None = None
        for part in pipeline.components.values():
            if isinstance(part, nn.Module):
                part.eval().requires_grad_(False)

    @property
    def pipeline(self) -> Any:
        return self.adapter.pipeline

    @classmethod
    def load(
        cls,
        base: str,
        adapter_or_model: Path | None = None,
        device: str = "cpu",
        dtype: DType | None = None,
        *,
        steps: int = 6,
        batch_size: int = 128,
        settings: EditorSettings | None = None,
        merge: bool = False,
    ) -> Self:
        """The Attacker of an artifact folder, or the base itself where none is given.

        An adapter is merged into float32 weights and stays beside weights in half precision, where rounding would undo
        most of what it has learned.

        Args:
            base: the base pipeline's name (shipped model, folder, hub name); used where the artifact holds an adapter.
            adapter_or_model: a folder with `model/` or `adapter/`, or one of these folders itself.
            dtype, settings: what the artifact was trained with unless given; float32 and the defaults without one.
            merge: merge an adapter into half precision too, to go on training all weights.

        Raises UnknownModelError for a base that is not there, CheckpointError for a folder that holds no
        Attacker.
        """
        folder = _checkpoint(adapter_or_model) if adapter_or_model is not None else None
        whole = folder is not None and (folder / "model_index.json").is_file()
        kept = EditorFile.read(folder) if folder is not None else EditorFile()
        source = str(folder) if whole else str(model_folder(base) or base)
        logging.disable_progress_bar()  # a bar a load, many loads a campaign
        name = cast(dict[str, Any], DiffusionPipeline.load_config(source))["_class_name"]
        if name not in EDITORS:
            raise CheckpointError(
                f"attacker {source!r} is a {name}, which no adapter drives; give a {', a '.join(EDITORS)}, or write an "
                "EditorAdapter for it"
            )
        precision = dtype or kept.dtype
        pipeline = load_adapter(name).load_pipeline(source, getattr(torch, precision))
        if folder is not None and not whole:
            adapted = PeftModel.from_pretrained(pipeline.transformer, str(folder))
            if merge or precision == "float32":
                warn_of_merging(base, precision)
                adapted = adapted.merge_and_unload()
            pipeline.transformer = adapted
        attacker = cls(pipeline, steps=steps, batch_size=batch_size, settings=settings or kept.settings)
        attacker.adapter.to(device)
        return attacker

    @classmethod
    def load_trainable(
        cls,
        base: str,
        folder: Path | None,
        model: ModelSettings,
        device: str = "cpu",
        settings: EditorSettings | None = None,
    ) -> Self:
        """The Attacker to continue training: the whole transformer, or a LoRA adapter on the base's.

        An adapter stays the same adapter through the rounds, so that it never stacks; a folder with an
        adapter and settings without LoRA give the merged model. LoRA's dropout is active in a fresh adapter alone (the
        warm start's). Raises CheckpointError for LoRA on a full
        model.
        """
        if model.lora is None or folder is None:
            attacker = cls.load(base, folder, device, model.dtype, settings=settings, merge=True)
            if model.lora is None:
                attacker.pipeline.transformer.requires_grad_(True)
            else:
                attacker.adapt(model.lora)
        else:
            adapter = _checkpoint(folder)
            if (adapter / "model_index.json").is_file():
                raise CheckpointError(
                    f"{folder} holds a full model, but the config trains a LoRA adapter on the base; set model.lora in "
                    "warm_start_attacker and attacker_round alike"
                )
            settings = settings or EditorFile.read(adapter).settings
            attacker = cls.load(base, None, device, model.dtype, settings=settings)
            adapted = PeftModel.from_pretrained(attacker.pipeline.transformer, str(adapter), is_trainable=True)
            # Without dropout: a round's log-probabilities are those of the policy that samples.
            attacker.pipeline.transformer = adapted.eval()
        if model.gradient_checkpointing:
            attacker.pipeline.transformer.enable_gradient_checkpointing()
        return attacker

    @torch.no_grad()
    def edit(self, images: Sequence[Image.Image], instructions: Sequence[str], *, seed: int) -> list[Image.Image]:
        """Edit every image by its instruction, along the deterministic flow. The same seed gives the same
        edits.

        Raises ValueError when the numbers differ or an image is not of the editor's size.
        """
        if len(images) != len(instructions):
            raise ValueError(f"{len(images)} images but {len(instructions)} instructions; give one each")
        generator = torch.Generator().manual_seed(seed)
        sigmas = self.sigmas(self.steps).tolist()
        edited: list[Image.Image] = []
        for first in range(0, len(images), self.batch_size):
            batch = slice(first, first + self.batch_size)
            condition = self.encode([image.convert("RGB") for image in images[batch]], instructions[batch])
            # Batch by batch: a round of a big editor's noise would fill the device. The numbers are the same.
            latents = self.noise(len(instructions[batch]), generator)
            for time, next_time in pairwise(sigmas):
                velocity = self.velocity(latents, latents.new_full((len(latents),), time), condition)
                latents = ode_step(latents, velocity, time, next_time)
            edited += self.decode(latents, condition)
        return edited

    def encode(self, images: Sequence[Image.Image], instructions: Sequence[str]) -> Conditioning:
        return self.adapter.encode(images, instructions)

    def latents(self, images: Sequence[Image.Image]) -> Tensor:
        return self.adapter.latents(images)

    def sigmas(self, steps: int) -> Tensor:
        return self.adapter.sigmas(steps)

    def velocity(self, latents: Tensor, time: Tensor, condition: Conditioning) -> Tensor:
        return self.adapter.velocity(latents, time, condition)

    @torch.no_grad()
    def reference_velocity(self, latents: Tensor, time: Tensor, condition: Conditioning) -> Tensor:
        with self._as_reference():
            return self.velocity(latents, time, condition)

    def noise(self, count: int, generator: torch.Generator) -> Tensor:
        """(count, ...) of standard normal noise, the same on every device."""
        return self.adapter.noise(count, generator)

    def decode(self, latents: Tensor, condition: Conditioning) -> list[Image.Image]:
        return self.adapter.decode(latents, condition)

    def trainable(self) -> list[nn.Parameter]:
        return [parameter for parameter in self.pipeline.transformer.parameters() if parameter.requires_grad]

    def hold_reference(self) -> None:
        transformer = self.pipeline.transformer
        if not isinstance(transformer, PeftModel):
            self._reference = [parameter.detach().clone() for parameter in self.trainable()]
        elif _has_learned(transformer):
            if _REFERENCE not in transformer.peft_config:
                transformer.add_adapter(_REFERENCE, transformer.peft_config["default"])
                transformer.set_adapter("default")  # freezes the other
            set_peft_model_state_dict(transformer, get_peft_model_state_dict(transformer), adapter_name=_REFERENCE)

    def save(self, folder: Path) -> None:
        """Write `model/` or `adapter/` (safetensors) into an artifact's folder, and how a big editor was driven."""
        transformer = self.pipeline.transformer
        if isinstance(transformer, PeftModel):
            for config in transformer.peft_config.values():
                config.base_model_name_or_path = None
            transformer.save_pretrained(str(folder / ADAPTER), selected_adapters=["default"])
            # peft adds a card with versions and places of its own; the artifact's record has them.
            (folder / ADAPTER / "README.md").unlink(missing_ok=True)
        else:
            self.adapter.save(folder / MODEL)
        EditorFile.write(folder / (ADAPTER if isinstance(transformer, PeftModel) else MODEL), self.adapter)

    def adapt(self, lora: LoraSettings) -> None:
        """Put a fresh adapter, which is what learns then, on the transformer."""
        transformer = self.pipeline.transformer
        config = LoraConfig(
            r=lora.rank,
            lora_alpha=lora.alpha,
            lora_dropout=lora.dropout,
            target_modules=_linear_layers(transformer)
            if lora.target_modules == "all-linear"
            else list(lora.target_modules),
        )
        self.pipeline.transformer = get_peft_model(transformer, config)

    @contextmanager
    def _as_reference(self) -> Iterator[None]:
        transformer = self.pipeline.transformer
        if isinstance(transformer, PeftModel) and _REFERENCE not in transformer.peft_config:
            with transformer.disable_adapter():
                yield
            return
        if isinstance(transformer, PeftModel):
            transformer.set_adapter(_REFERENCE, inference_mode=True)
            try:
                yield
            finally:
                transformer.set_adapter("default")
            return
        assert self._reference is not None, "hold_reference comes first"
        present = [parameter.detach().clone() for parameter in self.trainable()]
        self._put(self._reference)
        try:
            yield
        finally:
            self._put(present)

    @torch.no_grad()
    def _put(self, values: Sequence[Tensor]) -> None:
        for parameter, value in zip(self.trainable(), values, strict=True):
            parameter.copy_(value)


def _checkpoint(folder: Path) -> Path:
    """The folder of the weights: `folder/model`, `folder/adapter`, or `folder` itself."""
    for candidate in (folder / MODEL, folder / ADAPTER, folder):
        if (candidate / "model_index.json").is_file() or (candidate / "adapter_config.json").is_file():
            return candidate
    raise CheckpointError(
        f"{folder} holds neither {MODEL}/ nor {ADAPTER}/; give the artifact of warm_start_attacker or attacker_round"
    )


def _linear_layers(model: nn.Module) -> list[str]:
    return [name for name, layer in model.named_modules() if isinstance(layer, nn.Linear)]


def _has_learned(model: PeftModel) -> bool:
    """Whether an adapter adds anything: a fresh one's second factors are zero."""
    return any(bool(value.any()) for name, value in get_peft_model_state_dict(model).items() if "lora_B" in name)
