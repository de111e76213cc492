"""What one GPU does with the paper's shapes: tokens a second, seconds an update, memory. Needs no hub.

    python benchmarks/gpu.py --peak-tflops 990 --output gpu.json   # one card of 80 GB, nine minutes at most
    python benchmarks/gpu.py --small --output gpu-small.json       # the same code at toy shapes on a CPU

Weights are random, so answers and edits are noise: only shapes, time and memory are the models'. Pieces, each a
process of its own, so that one that runs out of memory takes no other along:

- `7b shared`, `7b stock`, `3b shared`, `3b stock`: a Defender's step (a generation and two updates with LoRA, bfloat16,
  gradient checkpointing) by our trainer, which encodes a prompt once a group, and by the installed TRL's.
- `editor window`, `editor all`: an update of Qwen-Image-Edit's 20B transformer with LoRA at 512 pixels, two steps of
  the window trained, or all but the last (Flow-GRPO as published). The text encoder and the autoencoder visit from CPU
  memory (`editor.offload`).
- `campaign`: configs/tiny.toml on the card, start to end.

OUTPUT is written after every piece; the same command goes on with those that are missing or failed. A piece is not
begun after `--minutes`, and what has begun is ended with them.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from aot_core.engine.runner import git_commit

DEFENDERS = ("7b shared", "7b stock", "3b shared", "3b stock")
EDITORS = ("editor window", "editor all")
PIECES = (*DEFENDERS, *EDITORS, "campaign")
_ROOT = Path(__file__).parents[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("gpu.json"))
    parser.add_argument("--minutes", type=float, default=9.0)
    parser.add_argument("--pieces", nargs="+", choices=PIECES, default=list(PIECES))
    parser.add_argument("--small", action="store_true", help="toy shapes, on a CPU")
    parser.add_argument("--peak-tflops", type=float, help="the card's dense peak at bfloat16 (an H100's is 990)")
    parser.add_argument("--piece", choices=PIECES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.piece:
        print(json.dumps(_measured(arguments.piece, arguments)))
        return
    if not arguments.small and not torch.cuda.is_available():
        raise SystemExit("this machine has no usable GPU; --small tries the same code at toy shapes on a CPU")
    if not arguments.small and not arguments.peak_tflops:
        raise SystemExit("--peak-tflops: give the card's dense peak at bfloat16 (an H100's is 990)")
    about = {"device": _device(arguments), "commit": git_commit(), "torch": torch.__version__}
    kept: dict[str, Any] = {"about": about, "pieces": {}}
    if arguments.output.is_file() and (found := json.loads(arguments.output.read_text()))["about"] == about:
        kept = found
    ends = time.monotonic() + 60 * arguments.minutes
    for piece in arguments.pieces:
        if "failed" not in kept["pieces"].get(piece, {"failed": ""}):
            continue
        if (left := ends - time.monotonic()) < 1:
            print(f"{piece}: no time left; give the same command again", flush=True)
            continue
        kept["pieces"][piece] = _run(piece, arguments, left)
        print(f"{piece}: {_told(kept['pieces'][piece])}", flush=True)
        partial = arguments.output.with_suffix(".partial")
        partial.write_text(json.dumps(kept, indent=1) + "\n")
        partial.replace(arguments.output)
    failed = [piece for piece in arguments.pieces if "failed" in kept["pieces"].get(piece, {"failed": ""})]
    raise SystemExit(f"not measured: {', '.join(failed)}" if failed else 0)


def _run(piece: str, arguments: argparse.Namespace, seconds: float) -> dict[str, Any]:
    """A piece's figures, or why there are none."""
    command = [sys.executable, __file__, "--piece", piece, *(["--small"] if arguments.small else [])]
    command += ["--peak-tflops", str(arguments.peak_tflops)] if arguments.peak_tflops else []
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False, cwd=_ROOT)
    except subprocess.TimeoutExpired:
        return {"failed": f"took longer than the {seconds:.0f} s that were left"}
    if done.returncode:
        return {"failed": (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]}
    return json.loads(done.stdout.strip().splitlines()[-1])


def _told(figures: dict[str, Any]) -> str:
    return ", ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in figures.items())


def _device(arguments: argparse.Namespace) -> str:
    return "cpu, toy shapes" if arguments.small else torch.cuda.get_device_name()


def _measured(piece: str, arguments: argparse.Namespace) -> dict[str, float]:
    torch.set_num_threads(1 if arguments.small else torch.get_num_threads())
    if piece in DEFENDERS:
        return _defender(piece, arguments)
    return _editor(piece, arguments) if piece in EDITORS else _campaign(arguments)


def _defender(piece: str, arguments: argparse.Namespace) -> dict[str, float]:
    from qwen_shapes import measure, processor_of, shape_of
    from transformers.utils import logging

    logging.set_verbosity_error()
    model, trainer = piece.split()
    sizes = {"visual": 16, "group": 2, "answer": 2} if arguments.small else {"visual": 1296, "group": 8, "answer": 128}
    told = argparse.Namespace(
        model=model,
        trainer=trainer,
        full=not arguments.small,
        layers=1,
        blocks=1,
        rank=8 if arguments.small else 64,
        device="cpu" if arguments.small else "cuda",
        peak_tflops=arguments.peak_tflops,
        steps=1 if arguments.small else 3,
        **sizes,
    )
    processor = processor_of(told.visual)
    return measure(shape_of(told, len(processor.tokenizer)), processor, told)


def _editor(piece: str, arguments: argparse.Namespace) -> dict[str, float]:
    """One update after one to warm up: a group's edits sampled, decoded, and trained on with rewards that differ."""
    import numpy as np
    from PIL import Image

    from aot_core.attacker.flow_grpo import optimise, rollout, stochastic_steps
    from aot_core.contracts.attacker_round import AttackerRoundConfig, SamplingSettings, WindowSettings

    steps, group = (3, 2) if arguments.small else (10, 8)
    sampling = (
        SamplingSettings(steps=steps, sampler="cps", window=WindowSettings(size=1 if arguments.small else 2))
        if piece.endswith("window")
        else SamplingSettings(steps=steps, sampler="cps", sde_steps=steps - 1, shared_noise=False)
    )
    config = AttackerRoundConfig(sampling=sampling, group_size=group, micro_batch=2, iterations=1)
    editor = _random_editor(arguments)
    editor.hold_reference()
    optimizer = torch.optim.AdamW(editor.trainable(), lr=1e-6)
    side = 64 if arguments.small else 512
    rewards = torch.linspace(0, 1, group)[None]
    clock: dict[str, float] = {}
    for update in range(2):
        pixels = np.random.default_rng(update).integers(0, 255, (side, side, 3), dtype=np.uint8)
        started = _now()
        condition = editor.encode([Image.fromarray(pixels)], ["Add a red ring at row 2, column 3."])
        encoded = _now()
        noise = torch.Generator().manual_seed(update)
        window = stochastic_steps(sampling, update)
        edits = rollout(editor, condition, group, sampling, noise, with_reference=True, stochastic=window)
        editor.decode(edits.latents, edits.condition)
        sampled = _now()
        optimise(editor, edits, rewards, config, optimizer)
        ended = _now()
        clock = {
            "seconds": ended - started,
            "encode_s": encoded - started,
            "sample_s": sampled - encoded,
            "train_s": ended - sampled,
        }
    peak = 0.0 if arguments.small else torch.cuda.max_memory_allocated() / 2**30
    return {**clock, "edits": float(group), "trained_steps": float(len(window)), "peak_gib": peak}


def _random_editor(arguments: argparse.Namespace) -> Any:
    """A Qwen-Image-Edit of random weights with LoRA: published shapes on the card, or toy ones on the CPU."""
    from diffusers import (
        AutoencoderKLQwenImage,
        FlowMatchEulerDiscreteScheduler,
        QwenImageEditPipeline,
        QwenImageTransformer2DModel,
    )
    from qwen_shapes import MODELS
    from transformers import AutoTokenizer, Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    from aot_core.attacker.editing import Attacker
    from aot_core.attacker.qwen_edit import ImageTextProcessor
    from aot_core.base_models.names import SHIPPED
    from aot_core.commands.estimate_attacker import PUBLISHED_EDITORS
    from aot_core.contracts.learning import EditorSettings, LoraSettings

    reader_folder = SHIPPED / "aot-tiny-vl"
    tokenizer = AutoTokenizer.from_pretrained(reader_folder)
    small = arguments.small
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float32 if small else torch.bfloat16)
    with torch.device("cpu" if small else "cuda"):
        if small:
            reader: Any = Qwen2_5_VLForConditionalGeneration.from_pretrained(reader_folder)
            shapes = {"in_channels": 16, "out_channels": 4, "num_layers": 2, "attention_head_dim": 16}
            shapes |= {"num_attention_heads": 2, "joint_attention_dim": 128, "axes_dims_rope": (4, 6, 6)}
            vae: Any = AutoencoderKLQwenImage(
                base_dim=4,
                z_dim=4,
                dim_mult=[1, 1, 1, 1],
                num_res_blocks=1,
                latents_mean=[0.0] * 4,
                latents_std=[1.0] * 4,
            )
        else:
            published, tokens = MODELS["7b"], tokenizer.get_vocab()
            reader = Qwen2_5_VLForConditionalGeneration._from_config(
                Qwen2_5_VLConfig(
                    vision_config=published["vision_config"],
                    text_config=published["text_config"]
                    | {
                        "max_position_embeddings": 32768,
                        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]},
                        "pad_token_id": tokenizer.pad_token_id,
                    },
                    image_token_id=tokens["<|image_pad|>"],
                    video_token_id=tokens["<|video_pad|>"],
                    vision_start_token_id=tokens["<|vision_start|>"],
                    vision_end_token_id=tokens["<|vision_end|>"],
                )
            ).to("cpu")  # it visits
            shapes = {**PUBLISHED_EDITORS["Qwen/Qwen-Image-Edit"], "axes_dims_rope": (16, 56, 56)}
            vae = AutoencoderKLQwenImage()
        transformer = QwenImageTransformer2DModel(**shapes)
    torch.set_default_dtype(torch.float32)
    images = (
        Qwen2VLImageProcessorPil.from_pretrained(reader_folder)
        if small
        else Qwen2VLImageProcessorPil(patch_size=14, merge_size=2)
    )
    pipeline = QwenImageEditPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(
            use_dynamic_shifting=True, base_shift=0.5, max_shift=0.9, max_image_seq_len=8192, shift_terminal=0.02
        ),
        vae=vae,
        text_encoder=reader,
        tokenizer=tokenizer,
        processor=ImageTextProcessor(images, tokenizer),
        transformer=transformer,
    )
    settings = EditorSettings(resolution=64 if small else 512, offload=True, forward_batch=16)
    editor = Attacker(pipeline, settings=settings)
    editor.adapter.to("cpu" if small else "cuda")
    rank = 2 if small else 64
    editor.adapt(LoraSettings(rank=rank, alpha=2 * rank))
    editor.pipeline.transformer.enable_gradient_checkpointing()
    return editor


def _campaign(arguments: argparse.Namespace) -> dict[str, Any]:
    """The tiny campaign in a home of its own, by `aot run`."""
    config = "configs/smoke.toml" if arguments.small else "configs/tiny.toml"
    with tempfile.TemporaryDirectory() as home:
        device = "cpu" if arguments.small else "cuda"
        started = time.perf_counter()
        command = [sys.executable, "-m", "aot_core", "run", config, "--home", home, "--device", device]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=_ROOT)
        if done.returncode:
            raise SystemExit(" ".join(done.stderr.split())[-400:])
        (summary,) = Path(home).glob("campaigns/*/summary.json")
        steps = json.loads(summary.read_text())["steps"]
        last = next(step["record"]["outputs"] for step in reversed(steps) if step["record"]["stage"] == "evaluate")
        return {"seconds": time.perf_counter() - started} | {
            f"strict_{name}": float(value) for name, value in last["strict"].items()
        }


def _now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


if __name__ == "__main__":
    main()
