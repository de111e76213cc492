"""What a campaign's Attacker stages will need where the editor is a Qwen-Image-Edit: parameters, memory, time.

As `aot_core.commands.estimate` for the Defender, and in its terms: counts of parameters and of the transformer's
operations are exact, memory is what must be held at once. The autoencoder's convolutions are left out of the time, and
so are the answers of the Defender that judges, a few tokens an edit.

Symbols: B edits an update; N tokens of noise and source; L tokens of the prompt, which holds the picture again.
"""

import json
from dataclasses import dataclass
from typing import Any

from aot_core.base_models.names import model_folder
from aot_core.commands.estimate import BYTES, Estimate, Shape
from aot_core.contracts.attacker_round import AttackerRoundConfig
from aot_core.contracts.campaign import CampaignConfig
from aot_core.contracts.learning import EditorSettings, ModelSettings
from aot_core.contracts.warm_start_attacker import WarmStartAttackerConfig

PUBLISHED_EDITORS: dict[str, dict[str, Any]] = {
    name: {
        "patch_size": 2,
        "in_channels": 64,
        "out_channels": 16,
        "num_layers": 60,
        "attention_head_dim": 128,
        "num_attention_heads": 24,
        "joint_attention_dim": 3584,
    }
    for name in ("Qwen/Qwen-Image-Edit", "Qwen/Qwen-Image-Edit-2509")
}
"""The shapes in the published transformers' configs."""
READER = "Qwen/Qwen2.5-VL-7B-Instruct"
"""The text encoder of both."""
VAE_PARAMETERS = 127_000_000
"""AutoencoderKLQwenImage at its published config, rounded up."""
INSTRUCTION_TOKENS = 80
"""The template's end, the instruction and the question."""
_TIME = 256
"""Width of the sinusoidal embedding of flow times."""


@dataclass(frozen=True)
class EditorShape:
    """A QwenImageTransformer2DModel's measures."""

    config: dict[str, Any]

    @classmethod
    def of(cls, name: str) -> "EditorShape | None":
        """None where the editor is another, or its measures are not known on this machine."""
        folder = model_folder(name)
        if folder is None:
            return cls(PUBLISHED_EDITORS[name]) if name in PUBLISHED_EDITORS else None
        path = folder / "transformer" / "config.json"
        config = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        return cls(config) if config.get("_class_name") == "QwenImageTransformer2DModel" else None

    @property
    def width(self) -> int:
        return self.config["num_attention_heads"] * self.config["attention_head_dim"]

    @property
    def _patch(self) -> int:
        """Numbers that a token is decoded to."""
        return self.config["patch_size"] ** 2 * self.config["out_channels"]

    @property
    def parameters(self) -> int:
        w, c = self.width, self.config
        # Two streams: modulations of six vectors, four attention projections each, MLPs of four times the width.
        block = 2 * (6 * w * w + 6 * w) + 8 * (w * w + w) + 4 * c["attention_head_dim"] + 2 * (8 * w * w + 5 * w)
        ends = (c["in_channels"] + 1) * w + (c["joint_attention_dim"] + 1) * w + c["joint_attention_dim"]
        time = (_TIME + 1) * w + (w + 1) * w
        return c["num_layers"] * block + ends + time + 2 * w * (w + 1) + (w + 1) * self._patch

    def lora(self, rank: int) -> int:
        """Weights of adapters on all linear layers."""
        w, c = self.width, self.config
        ends = (c["in_channels"] + w) + (c["joint_attention_dim"] + w) + (_TIME + w) + 2 * w + 3 * w + (w + self._patch)
        return rank * (c["num_layers"] * 50 * w + ends)

    def forward(self, image_tokens: int, text_tokens: int) -> float:
        """Operations of one edit's pass: two a weight and token, and attention's two products over all tokens."""
        w, c = self.width, self.config
        tokens = image_tokens + text_tokens
        layer = tokens * 2 * 12 * w * w + 4 * tokens**2 * w + 2 * 12 * w * w
        ends = 2 * w * (image_tokens * (c["in_channels"] + self._patch) + text_tokens * c["joint_attention_dim"])
        return c["num_layers"] * layer + ends + 2 * w * (_TIME + w + 2 * w)


def tokens_of(settings: EditorSettings) -> tuple[int, int]:
    """N, noise and source, and L, the picture as the text encoder sees it and the words."""
    reader = Shape.of(READER)
    return 2 * (settings.resolution // 16) ** 2, reader.visual_tokens(settings.resolution**2) + INSTRUCTION_TOKENS


def estimate_attacker(config: CampaignConfig) -> list[Estimate]:
    """The Attacker's two trainings, of a round one round; nothing where the editor's measures are not known."""
    shape = EditorShape.of(config.models.attacker)
    if shape is None:
        return []
    return [
        _warm_start(shape, config.warm_start_attacker),
        _round(shape, config.attacker_round, config.models.defender),
    ]


def _warm_start(shape: EditorShape, config: WarmStartAttackerConfig) -> Estimate:
    settings = config.editor or EditorSettings()
    image, text = tokens_of(settings)
    passes = _training_passes(config.model) * config.updates * config.batch_size * config.gradient_accumulation
    operations = passes * shape.forward(image, text) + config.pairs * _reading(text)
    held = _held(shape, config.model, settings, config.batch_size * (image + text), reference=False)
    return _of("warm_start_attacker", shape, config.model, text, held, operations)


def _round(shape: EditorShape, config: AttackerRoundConfig, defender: str) -> Estimate:
    settings = config.editor or EditorSettings()
    image, text = tokens_of(settings)
    prompts = config.scenes * config.proposals_per_scene
    edits = prompts * config.group_size
    trained = config.sampling.sde_steps
    # Sampled once, the reference at the trained steps, and every trained step of every pass.
    passes = config.sampling.steps + (trained if config.kl else 0)
    passes += _training_passes(config.model) * trained * config.iterations
    operations = config.updates * (edits * passes * shape.forward(image, text) + prompts * _reading(text))
    tokens = config.micro_batch * (image + text)
    held = _held(shape, config.model, settings, tokens, reference=config.kl > 0)
    judge = Shape.of(defender)
    weights = (judge.language + judge.visual) * BYTES[config.defender_dtype]
    # An offloaded Defender takes turns with an offloaded text encoder, and with a batch's activations.
    visitor = "text encoder and autoencoder"
    beside = held["activations"] + (held[visitor] if settings.offload else 0.0)
    held["Defender"] = max(0.0, weights - beside) if config.defender_offload else weights
    return _of("attacker_round", shape, config.model, text, held, operations)


def _training_passes(model: ModelSettings) -> int:
    """In forward passes: one forward, one again with checkpoints, and backward one for what flows through and, where
    all weights learn, one for these."""
    return 2 + int(model.gradient_checkpointing) + int(model.lora is None)


def _reading(text_tokens: int) -> float:
    """Operations of reading one prompt and its picture."""
    reader = Shape.of(READER)
    return reader.forward(text_tokens, text_tokens / 2, 0, 1, text_tokens - INSTRUCTION_TOKENS)


def _held(
    shape: EditorShape, model: ModelSettings, settings: EditorSettings, tokens: int, *, reference: bool
) -> dict[str, float]:
    """Bytes on the device at the worst moment, by what they hold."""
    size = BYTES[model.dtype]
    reader = Shape.of(READER)
    visitors = (reader.language + reader.visual + VAE_PARAMETERS) * size
    trained = shape.parameters if model.lora is None else shape.lora(model.lora.rank)
    each = size if model.lora is None else 4.0
    # A layer's: normed and modulated inputs, queries, keys, values and attention's output, the MLP's two products; and
    # what adapters in float32 are given of them.
    layer = tokens * shape.width * (22 * size + (22 * 4.0 if model.lora is not None and size < 4 else 0.0))
    kept = shape.config["num_layers"] * tokens * shape.width * size
    activations = kept + layer if model.gradient_checkpointing else shape.config["num_layers"] * layer
    held = {
        "weights": shape.parameters * size + (trained * each if model.lora is not None else 0.0),
        "reference": trained * each if reference else 0.0,
        "gradients and Adam": 3 * trained * each,
        "activations": activations,
    }
    # With offload the text encoder and the autoencoder are there before a batch's activations are, and not with them.
    held["text encoder and autoencoder"] = max(0.0, visitors - activations) if settings.offload else visitors
    return held


def _of(stage: str, shape: EditorShape, model: ModelSettings, text: int, held: Any, operations: float) -> Estimate:
    trained = shape.parameters if model.lora is None else shape.lora(model.lora.rank)
    return Estimate(stage, shape.parameters, trained, text, held, operations)
