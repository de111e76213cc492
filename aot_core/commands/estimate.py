"""What a campaign's Defender stages will need, before anything is loaded: parameters, memory, time.

The Attacker's, where it is a big editor, are in `aot_core.commands.estimate_attacker`.

From the model's config (of a folder, or the published shapes of Qwen2.5-VL) and the campaign's. Imports without torch.
Counts of parameters are exact; floating point operations are those of the matrix products; memory is what must be held
at once, without an allocator's fragments; time is operations by the speed that a machine keeps up, which is measured
here on a CPU and must be given for a GPU. `tests/commands/test_estimate.py` compares it with real models and measured
steps.

Symbols: P prompts a generation, G answers a prompt, L prompt tokens, T answer tokens at most.
"""

import json
import time
from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from rich.console import Console

from aot_core.base_models.names import model_folder
from aot_core.commands.progress import planned_stages
from aot_core.contracts.campaign import CampaignConfig
from aot_core.contracts.learning import DefenderModelSettings
from aot_core.contracts.series import EditionPlan
from aot_core.contracts.terminal import print_json, table

GIB = 2**30
BYTES = {"float32": 4.0, "bfloat16": 2.0, "float16": 2.0, "nf4": 0.56}
"""A weight's; nf4 with its doubly quantised scales (arXiv 2305.14314, section 3)."""
SUSTAINED = 0.4
"""The share of a GPU's peak that training keeps up; an assumption, printed with every estimate on a GPU."""
TEXT_TOKENS = 120
"""A question with options and the chat's frame; the longest of the tiny world has 60."""

_VISION = {
    "depth": 32,
    "hidden_size": 1280,
    "intermediate_size": 3420,
    "num_heads": 16,
    "patch_size": 14,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
    "in_channels": 3,
    "window_size": 112,
    "fullatt_block_indexes": [7, 15, 23, 31],
}
PUBLISHED: dict[str, dict[str, Any]] = {
    "Qwen/Qwen2.5-VL-3B-Instruct": {
        "text_config": {
            "hidden_size": 2048,
            "num_hidden_layers": 36,
            "num_attention_heads": 16,
            "num_key_value_heads": 2,
            "intermediate_size": 11008,
            "vocab_size": 151936,
        },
        "vision_config": {**_VISION, "out_hidden_size": 2048},
        "tie_word_embeddings": True,
    },
    "Qwen/Qwen2.5-VL-7B-Instruct": {
        "text_config": {
            "hidden_size": 3584,
            "num_hidden_layers": 28,
            "num_attention_heads": 28,
            "num_key_value_heads": 4,
            "intermediate_size": 18944,
            "vocab_size": 152064,
        },
        "vision_config": {**_VISION, "out_hidden_size": 3584},
        "tie_word_embeddings": False,
    },
}
"""The shapes in the models' published configs, for machines that may not ask the hub."""


@dataclass(frozen=True)
class Shape:
    """A Qwen2.5-VL's measures."""

    text: dict[str, Any]
    vision: dict[str, Any]
    tied: bool
    most_pixels: int | None = None
    """What the processor scales an image down to."""

    @classmethod
    def of(cls, name: str) -> "Shape":
        """Raises ValueError where the model's measures are not known on this machine."""
        folder = model_folder(name)
        if folder is None:
            if name not in PUBLISHED:
                raise ValueError(
                    f"the measures of {name!r} are not known here; give the model's folder, or one of "
                    f"{', '.join(PUBLISHED)}"
                )
            config, pixels = PUBLISHED[name], None
        else:
            config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
            processor = folder / "processor_config.json"
            sizes = json.loads(processor.read_text(encoding="utf-8"))["image_processor"] if processor.is_file() else {}
            pixels = sizes.get("size", {}).get("longest_edge")
        if "text_config" not in config or "vision_config" not in config:
            raise ValueError(f"{name!r} is no Qwen2.5-VL; `aot plan` knows that architecture alone")
        return cls(config["text_config"], config["vision_config"], config.get("tie_word_embeddings", False), pixels)

    @property
    def key_width(self) -> int:
        return self.text["num_key_value_heads"] * self.text["hidden_size"] // self.text["num_attention_heads"]

    @property
    def layer(self) -> int:
        """Weights of one language layer."""
        h, i, k = self.text["hidden_size"], self.text["intermediate_size"], self.key_width
        return 2 * h * h + h + 2 * (h * k + k) + 3 * h * i + 2 * h

    @property
    def language(self) -> int:
        h = self.text["hidden_size"]
        return self.layer * self.text["num_hidden_layers"] + h + self.text["vocab_size"] * h * (1 if self.tied else 2)

    @property
    def visual(self) -> int:
        v = self.vision
        h, i, merged = v["hidden_size"], v["intermediate_size"], v["hidden_size"] * v["spatial_merge_size"] ** 2
        block = 4 * h * h + 4 * h + 3 * h * i + 2 * i + h + 2 * h
        patch = v["in_channels"] * v["temporal_patch_size"] * v["patch_size"] ** 2 * h
        merger = h + merged * merged + merged + merged * v["out_hidden_size"] + v["out_hidden_size"]
        return block * v["depth"] + patch + merger

    def visual_tokens(self, pixels: int) -> int:
        return pixels // (self.vision["patch_size"] * self.vision["spatial_merge_size"]) ** 2

    def lora(self, rank: int, vision: bool) -> int:
        """Weights of adapters on all linear layers but the head; of the language model, and of vision if asked."""
        h, i, k = self.text["hidden_size"], self.text["intermediate_size"], self.key_width
        total = self.text["num_hidden_layers"] * rank * (2 * 2 * h + 2 * (h + k) + 3 * (h + i))
        if vision:
            v = self.vision
            h, i, merged = v["hidden_size"], v["intermediate_size"], v["hidden_size"] * v["spatial_merge_size"] ** 2
            total += v["depth"] * rank * (4 * h + 2 * h + 3 * (h + i))
            total += rank * (2 * merged + merged + v["out_hidden_size"])
        return total

    def forward(self, tokens: int, seen: float, scored: int, images: int, visual_tokens: int) -> float:
        """Operations of a forward pass: two a weight and token, and attention's two products.

        Args:
            tokens: through the language layers.
            seen: tokens that a token attends to, on average.
            scored: tokens through the head.
        """
        t, v = self.text, self.vision
        language = tokens * t["num_hidden_layers"] * (2 * self.layer + 4 * seen * t["hidden_size"])
        patches = visual_tokens * v["spatial_merge_size"] ** 2
        window = (v["window_size"] // v["patch_size"]) ** 2
        full = len(v["fullatt_block_indexes"])
        attended = 4 * v["hidden_size"] * (full * patches + (v["depth"] - full) * min(window, patches))
        merger = self.vision["hidden_size"] ** 2 * v["spatial_merge_size"] ** 2 * 2 * v["spatial_merge_size"] ** 2
        blocks = self.visual * 2 - merger * (1 - 1 / v["spatial_merge_size"] ** 2)  # the merger sees merged tokens
        return language + 2 * scored * t["hidden_size"] * t["vocab_size"] + images * patches * (blocks + attended)


@dataclass(frozen=True)
class Estimate:
    """One stage, on one device."""

    stage: str
    parameters: int
    trained: int
    prompt_tokens: int
    memory: dict[str, float]
    """Bytes, by what they hold."""
    operations: float
    """Floating point operations of the whole stage, over all processes."""
    processes: int = 1

    @property
    def total_memory(self) -> float:
        return sum(self.memory.values())


def estimate(config: CampaignConfig, prompt_tokens: int | None = None) -> list[Estimate]:
    """The Defender's two trainings; of a round, one round. Memory is one process's, with `run.accelerate` as where FSDP
    or ZeRO-3 share out weights, gradients and Adam's moments.

    Args:
        prompt_tokens: L; None for the longest that the config lets through.
    """
    shape = Shape.of(config.models.defender)
    round_, warm = config.defender_round, config.warm_start_defender
    pixels = round_.max_prompt_pixels or shape.most_pixels or 4_194_304
    visual = shape.visual_tokens(pixels)
    longest = min(visual + TEXT_TOKENS, round_.max_prompt_tokens or 10**9)
    prompt = prompt_tokens or longest
    visual = min(visual, prompt)
    sharded = config.run.accelerate is not None
    return [
        _warm_start(shape, warm, prompt, visual, warm.processes if sharded else 1),
        _round(shape, round_, prompt, visual, round_.processes if sharded else 1),
    ]


def _warm_start(shape: Shape, config: Any, prompt: int, visual: int, shards: int) -> Estimate:
    tokens = config.batch_size * (prompt + 12)
    held = {name: size / shards for name, size in _weights(shape, config.model, vision=True).items()}
    seen = config.batch_size * visual
    held["activations"] = _activations(shape, config.model, tokens, 0, seen) + 4.0 * tokens * shape.text["vocab_size"]
    passes = 4 if config.model.gradient_checkpointing else 3
    forward = shape.forward(prompt + 12, prompt / 2, prompt + 12, 1, visual)
    return _of(
        "warm_start_defender",
        shape,
        config.model,
        True,
        prompt,
        held,
        passes * forward * config.samples * config.epochs,
        config.processes,
    )


def _round(shape: Shape, config: Any, prompt: int, visual: int, shards: int) -> Estimate:
    answers, answer = config.prompts * config.group_size, config.max_completion_tokens
    micro_batch = config.micro_batch or answers // config.processes
    prompts = max(1, micro_batch // config.group_size) if config.share_prompts else micro_batch
    tokens = prompts * prompt + micro_batch * answer
    held = _weights(shape, config.model, vision=not config.freeze_vision)
    if config.beta and config.model.lora is None and not config.reference_on_cpu:
        held["reference"] = held["weights"]
    held = {name: size / shards for name, size in held.items()}
    seen = 0 if config.freeze_vision else prompts * visual
    held["activations"] = _activations(shape, config.model, tokens, micro_batch * answer, seen)
    at_once = config.generation_prompts or config.prompts // config.processes
    cached = at_once * ((1 if config.share_prompts else config.group_size) * prompt + config.group_size * answer)
    half = BYTES[config.model.dtype]
    keys = 2.0 * cached * shape.key_width * shape.text["num_hidden_layers"] * half
    held["beyond training, keys and values"] = max(0.0, keys - held["activations"])
    encoded = config.prompts * (1 if config.share_prompts else config.group_size)
    forward = shape.forward(encoded * prompt, prompt / 2, 0, encoded, visual)
    forward += shape.forward(answers * answer, prompt + answer / 2, answers * answer, 0, 0)
    passes = 1 + (4 if config.model.gradient_checkpointing else 3) * config.iterations
    asked = 1.0 if config.dynamic_sampling is None else 1.0 + config.dynamic_sampling.refills / 2  # half are missing
    operations = config.generations * forward * (passes + asked - 1)
    vision = not config.freeze_vision
    return _of("defender_round", shape, config.model, vision, prompt, held, operations, config.processes)


def _of(
    stage: str, shape: Shape, model: Any, vision: bool, prompt: int, held: Any, operations: float, processes: int
) -> Estimate:
    total = shape.language + shape.visual
    return Estimate(stage, total, _trained(shape, model, vision), prompt, held, operations, processes)


def _trained(shape: Shape, model: DefenderModelSettings, vision: bool) -> int:
    if model.lora is not None:
        return shape.lora(model.lora.rank, vision)
    return shape.language + (shape.visual if vision else 0)


def _weights(shape: Shape, model: DefenderModelSettings, vision: bool) -> dict[str, float]:
    """Weights, and for those that are trained a gradient and Adam's two moments; adapters are in float32."""
    trained = _trained(shape, model, vision)
    each = 4.0 if model.lora is not None else BYTES[model.dtype]
    weights = (shape.language + shape.visual) * BYTES[model.quantization or model.dtype]
    return {"weights": weights + (trained * each if model.lora else 0.0), "gradients and Adam": 3 * trained * each}


def _activations(shape: Shape, model: DefenderModelSettings, tokens: int, scored: int, visual_tokens: int) -> float:
    """What a backward pass needs of the forward one; with checkpoints, a layer's input each and one layer's whole.

    Args:
        visual_tokens: through a vision tower that is trained; a frozen one keeps nothing.
    """
    t, v, size = shape.text, shape.vision, BYTES[model.dtype]
    layers, blocks, patches = t["num_hidden_layers"], v["depth"], visual_tokens * v["spatial_merge_size"] ** 2
    layer = _layer_keeps(tokens, t["hidden_size"], t["intermediate_size"], shape.key_width, size)
    block = _layer_keeps(patches, v["hidden_size"], v["intermediate_size"], v["hidden_size"], size)
    if model.gradient_checkpointing:
        inputs = size * (layers * tokens * t["hidden_size"] + blocks * patches * v["hidden_size"])
        body = inputs + max(layer, block)
    else:
        body = layers * layer + blocks * block
    return body + 4.0 * min(scored, 4096) * min(t["vocab_size"], 32768)


def _layer_keeps(tokens: int, hidden: int, intermediate: int, keys: int, size: float) -> float:
    """Bytes: residuals and their float32 norms, queries, keys, values, attention's output, the MLP's four products."""
    return tokens * (size * (6 * hidden + 4 * keys + 4 * intermediate) + 4 * 4 * hidden)


def measured_speed() -> float:
    """Floating point operations a second that this machine's matrix products reach in float32."""
    a = np.random.default_rng(0).standard_normal((768, 768), dtype=np.float32)
    best = float("inf")
    for _ in range(100):  # the best of many: other processes may take the machine's time
        started = time.perf_counter()
        np.matmul(a, a)
        best = min(best, time.perf_counter() - started)
    return 2 * 768**3 / best


def print_plan(
    config: CampaignConfig, prompt_tokens: int | None, peak_tflops: float | None, *, as_json: bool = False
) -> None:
    """Print the estimates and what they assume; or the estimates alone as JSON: bytes, operations and seconds."""
    from aot_core.commands.estimate_attacker import estimate_attacker

    speed = measured_speed() if peak_tflops is None else peak_tflops * 1e12 * SUSTAINED
    attacker = estimate_attacker(config)
    estimates = [*attacker, *estimate(config, prompt_tokens)]
    seconds = [one.operations / speed / (1 if peak_tflops is None else one.processes) for one in estimates]
    times = times_run(config)
    if as_json:
        told = zip(estimates, seconds, strict=True)
        print_json(
            [
                asdict(one) | {"total_memory": one.total_memory, "seconds": time_, "times": times.get(one.stage, 0)}
                for one, time_ in told
            ]
        )
        return
    # A block a stage: nine columns do not fit into 80 characters.
    planned = table("", "stage", "", "")
    for one, time_ in zip(estimates, seconds, strict=True):
        parts = ", ".join(f"{name} {size / GIB:.2f}" for name, size in one.memory.items() if size > 0)
        facts = {
            "time": _time(time_),
            "memory a device": f"{one.total_memory / GIB:.2f} GiB ({parts})",
            "weights": f"{one.parameters / 1e6:,.1f} M, of which trained {one.trained / 1e6:,.1f} M",
            "operations": f"{one.operations:.1e}",
            "prompt tokens": f"{one.prompt_tokens:,}",
            "processes": str(one.processes),
        }
        for number, (name, value) in enumerate(facts.items()):
            planned.add_row(one.stage if number == 0 else "", name, value, end_section=number == len(facts) - 1)
    console = Console()
    console.print(planned)
    how = (
        f"this machine's matrix products, measured: {speed / 1e9:,.0f} GFLOP/s"
        if peak_tflops is None
        else f"{peak_tflops:g} TFLOP/s a process at {SUSTAINED:.0%} of the peak (an assumption)"
    )
    console.print(
        f"Time by {how}; generation token by token and loading come on top. Each estimate is for one run of the stage. "
        "Memory without the allocator's fragments and the framework's own gigabyte. "
        + ("The editor's are without its autoencoder's convolutions and the Defender's answers." if attacker else "")
    )
    estimated = {one.stage for one in estimates}
    console.print(f"Estimated stages of the campaign: {_times_told(times, estimated)}.")
    console.print(f"Not estimated, and on top: {_times_told(times, set(times) - estimated)}.")
    if config.series is not None:
        console.print(
            "These are the stages of a first edition; a later one also compares its data with the champion's, and may "
            "begin without a warm start."
        )


def times_run(config: CampaignConfig) -> dict[str, int]:
    """Stage to how often the campaign runs it; of a series, the first edition."""
    if config.series is not None and config.edition is None:
        first = EditionPlan(series=config.series.name, number=1, seed=config.seed)
        config = config.model_copy(update={"edition": first})
    return dict(Counter(stage for _, stage in planned_stages(config)))


def _times_told(times: dict[str, int], chosen: set[str]) -> str:
    told = [stage if count == 1 else f"{stage} ({count} times)" for stage, count in times.items() if stage in chosen]
    return ", ".join(told) or "none"


def _time(seconds: float) -> str:
    for size, name in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.1f} {name}"
    return f"{seconds:.1f} s"
