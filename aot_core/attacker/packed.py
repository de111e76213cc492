"""The editors that sample packed latents: what Qwen-Image-Edit (and Plus) and FLUX Kontext have in common.

    image -> square frame -> autoencoder -> (B, S, C) tokens of 2 x 2 latents   } condition, encoded once
    instruction (and frame) -> text encoder -> (B, L, D)                        }
    noise tokens, source tokens behind them -> transformer -> velocity of the noise's half

The stock pipelines do all this inside a `__call__` that runs under `no_grad` and at a resolution of its own; here the
same parts of the same pipeline are called piece by piece, at the config's resolution, and gradients reach the
transformer. `tests/attacker/test_editors.py` holds an edit along these pieces against the stock `__call__`.

Shapes: B edits; S tokens of a frame; C channels of a token, four latent channels' worth; L prompt tokens.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from diffusers.pipelines.qwenimage.pipeline_qwenimage_edit import calculate_shift
from PIL import Image
from torch import Tensor, nn

from aot_core.attacker.conditioning import Conditioning
from aot_core.attacker.encodings import Encoding, EncodingCache, digest
from aot_core.attacker.frames import fit, keep_source, restore
from aot_core.attacker.tiny_edit import save_pipeline
from aot_core.contracts.errors import NonFiniteLossError
from aot_core.contracts.learning import EditorSettings

_DECODED = 4
"""Images that the autoencoder decodes at a time."""


@dataclass(frozen=True)
class PackedConditioning(Conditioning):
    """B edits; `source` is (B, S, C). The last three are there under classifier-free guidance."""

    pictures: tuple[Image.Image, ...]
    """The source images, in their own sizes."""
    text: Tensor
    """(B, L, D): hidden states of the prompt, zeros behind its end."""
    text_mask: Tensor
    """(B, L) of bool."""
    pooled: Tensor | None = None
    """(B, P): for editors that want the whole prompt in one vector too."""
    negative_text: Tensor | None = None
    negative_mask: Tensor | None = None
    negative_pooled: Tensor | None = None

    channel_dim: ClassVar[int] = 2


class EncodedPrompt(NamedTuple):
    """B prompts, as in `PackedConditioning`."""

    text: Tensor
    mask: Tensor
    pooled: Tensor | None


class PackedEditor(ABC):
    """A stock pipeline, taken apart (an `EditorAdapter`). Latents are float32, whatever the transformer computes in:
    log-probabilities are taken of them."""

    text_encoders: ClassVar[tuple[str, ...]]
    """The names of the pipeline's parts that read prompts."""
    prompt_sees_image: ClassVar[bool]

    def __init__(self, pipeline: Any, settings: EditorSettings | None) -> None:
        """Raises ValueError for a resolution that the autoencoder and the packing do not divide."""
        self.pipeline = pipeline
        self.settings = settings = settings or EditorSettings()
        self.device = torch.device("cpu")
        self.side = settings.resolution
        """Of the frame, in pixels."""
        multiple = 2 * pipeline.vae_scale_factor
        if self.side % multiple:
            raise ValueError(
                f"editor.resolution {self.side} must be a multiple of {multiple} (the autoencoder's {multiple // 2} "
                "times the packing's 2)"
            )
        self.latent_side = self.side // pipeline.vae_scale_factor
        self.channels: int = pipeline.transformer.config.in_channels // 4
        self.cache = EncodingCache(settings.cached_encodings)

    @property
    def dtype(self) -> torch.dtype:
        """What the frozen transformer computes in; adapters on it may be in float32."""
        return self.pipeline.vae.dtype

    def to(self, device: str) -> None:
        """Move there what works all the time; with `offload`, text encoders and autoencoder only visit."""
        self.device = torch.device(device)
        self.pipeline.transformer.to(self.device)
        if not self.settings.offload:
            for part in (self.pipeline.vae, *self._readers()):
                part.to(self.device)

    @torch.no_grad()
    def encode(self, images: Sequence[Image.Image], instructions: Sequence[str]) -> PackedConditioning:
        """Images of any sizes and an instruction each. The condition waits where the text encoders do.

        Raises ValueError where the numbers differ.
        """
        if len(images) != len(instructions):
            raise ValueError(f"{len(images)} images but {len(instructions)} instructions; give one each")
        wanted: dict[Hashable, Callable[[], Encoding]] = {}
        rows: list[tuple[Hashable, Hashable, Hashable]] = []
        for image, instruction in zip(images, instructions, strict=True):
            known = digest(image)
            keys = [("source", known)]
            wanted[keys[0]] = partial(self._source, image)
            for text in (instruction, self.settings.negative_prompt):
                key = (text, known if self.prompt_sees_image else "")
                keys.append(key)
                if text is instruction or self._guided:
                    wanted[key] = partial(self._prompt, image, text)
            rows.append((keys[0], keys[1], keys[2]))
        found = self.cache.get(wanted, partial(self._at_work, "vae", *self.text_encoders))
        source = torch.cat([found[row[0]][0] for row in rows])
        prompts = _padded([found[row[1]] for row in rows])
        against = _padded([found[row[2]] for row in rows]) if self._guided else (None, None, None)
        return PackedConditioning(source, tuple(image.convert("RGB") for image in images), *prompts, *against)

    @torch.no_grad()
    def latents(self, images: Sequence[Image.Image]) -> Tensor:
        """(B, S, C), clean."""
        with self._at_work("vae"):
            return torch.cat([self._source(image)[0] for image in images]).to(self.device)

    def sigmas(self, steps: int) -> Tensor:
        """(steps + 1,) from 1 down to 0, shifted for this resolution as the pipeline's scheduler says."""
        scheduler = self.pipeline.scheduler
        known = scheduler.config
        shift = calculate_shift(
            (self.latent_side // 2) ** 2,
            known.get("base_image_seq_len", 256),
            known.get("max_image_seq_len", 4096),
            known.get("base_shift", 0.5),
            known.get("max_shift", 1.15),
        )
        scheduler.set_timesteps(sigmas=np.linspace(1.0, 1 / steps, steps), device=self.device, mu=shift)
        return scheduler.sigmas

    def noise(self, count: int, generator: torch.Generator) -> Tensor:
        """(count, S, C), drawn as the pipeline draws it."""
        shape = (count, self.channels, self.latent_side, self.latent_side)
        # Not scaled to anything: both pipelines' flows start at a standard normal.
        return self.pipeline._pack_latents(torch.randn(shape, generator=generator), *shape).to(self.device)

    def velocity(self, latents: Tensor, time: Tensor, condition: PackedConditioning) -> Tensor:
        """dx/dt in float32: (B, S, C), of latents (B, S, C) at flow times (B,)."""
        size = len(latents) if torch.is_grad_enabled() else self.settings.forward_batch
        parts = [slice(first, first + size) for first in range(0, len(latents), size)]
        return torch.cat([self._guided_velocity(latents[rows], time[rows], condition.select(rows)) for rows in parts])

    @torch.no_grad()
    def decode(self, latents: Tensor, condition: PackedConditioning) -> list[Image.Image]:
        """The edits, each of its source's size. Raises NonFiniteLossError for latents that are not finite."""
        if not bool(latents.isfinite().all()):
            raise NonFiniteLossError(
                "the editor's latents are not finite; check the weights, or set model.dtype to bfloat16 or float32"
            )
        frames: list[Image.Image] = []
        with self._at_work("vae"):
            for part in latents.split(_DECODED):
                pixels = self._decoded(part.to(self.device, self.dtype)).float()
                frames += self.pipeline.image_processor.postprocess(pixels, output_type="pil")
        edits = [restore(frame, source.size) for frame, source in zip(frames, condition.pictures, strict=True)]
        if not self.settings.keep_source:
            return edits
        change = (latents - condition.source.to(latents)).pow(2).mean(2).sqrt()
        low, high = self.settings.keep_below, self.settings.edit_above
        tokens = self.latent_side // 2
        shares = ((change - low) / (high - low)).clamp(0, 1).view(-1, tokens, tokens)
        return [
            keep_source(source, edit, share, self.side)
            for source, edit, share in zip(condition.pictures, edits, shares, strict=True)
        ]

    def save(self, folder: Path) -> None:
        """Write the whole pipeline, so that `from_pretrained` loads it."""
        save_pipeline(self.pipeline, folder)

    @abstractmethod
    def _prompt(self, image: Image.Image, text: str) -> Encoding:
        """A prompt's hidden states (1, L, D), mask (1, L) and, where wanted, pooled vector (1, P)."""

    @abstractmethod
    def _packed(self, pixels: Tensor) -> Tensor:
        """Pixels (1, 3, H, W) in -1..1 to tokens (1, S, C)."""

    @abstractmethod
    def _decoded(self, latents: Tensor) -> Tensor:
        """Tokens (B, S, C) to pixels (B, 3, H, W) in -1..1."""

    @abstractmethod
    def _predict(self, latents: Tensor, time: Tensor, source: Tensor, prompt: EncodedPrompt) -> Tensor:
        """One pass of the transformer: (B, S, C)."""

    def _combine(self, positive: Tensor, negative: Tensor) -> Tensor:
        """Classifier-free guidance."""
        return negative + self.settings.true_cfg_scale * (positive - negative)

    @property
    def _guided(self) -> bool:
        return self.settings.true_cfg_scale > 1

    def _guided_velocity(self, latents: Tensor, time: Tensor, condition: PackedConditioning) -> Tensor:
        given = condition.to(self.device)
        inputs = (latents.to(self.dtype), time.to(self.dtype), given.source)
        velocity = self._predict(*inputs, EncodedPrompt(given.text, given.text_mask, given.pooled))
        if self._guided:
            assert given.negative_text is not None
            assert given.negative_mask is not None
            against = EncodedPrompt(given.negative_text, given.negative_mask, given.negative_pooled)
            velocity = self._combine(velocity, self._predict(*inputs, against))
        return velocity.float()

    def _source(self, image: Image.Image) -> Encoding:
        pixels = self.pipeline.image_processor.preprocess(fit(image, self.side), self.side, self.side)
        return (self._packed(pixels.to(self.device, self.dtype)).to(self._home),)

    @property
    def _home(self) -> torch.device:
        """Where encodings wait."""
        return torch.device("cpu") if self.settings.offload else self.device

    def _readers(self) -> list[nn.Module]:
        return [getattr(self.pipeline, name) for name in self.text_encoders]

    @contextmanager
    def _at_work(self, *names: str) -> Iterator[None]:
        """Parts of the pipeline on the device; with `offload` they go back to the CPU afterwards."""
        parts = [getattr(self.pipeline, name) for name in names]
        for part in parts:
            part.to(self.device)
        try:
            yield
        finally:
            if self.settings.offload:
                for part in parts:
                    part.to("cpu")


def _padded(prompts: Sequence[Encoding]) -> EncodedPrompt:
    """Prompts of unequal lengths as one batch."""
    text = nn.utils.rnn.pad_sequence([prompt[0][0] for prompt in prompts], batch_first=True)
    mask = nn.utils.rnn.pad_sequence([prompt[1][0].bool() for prompt in prompts], batch_first=True)
    return EncodedPrompt(text, mask, torch.cat([prompt[2] for prompt in prompts]) if len(prompts[0]) > 2 else None)
