"""One GRPO step, generation and update: stock TRL against the shared prompt, in one process, on the same batch.

    python benchmarks/defender.py                          # 64 to 2,048 visual tokens x G of 4, 8 and 16
    python benchmarks/defender.py --visual 1024 --groups 8 --answers 12 100 --repeats 5

A Qwen2.5-VL of random weights (--hidden, --layers), a prompt a step of one image and a question, answers that never end
before --answers tokens. Both trainers make the same steps from the same seed, in turn, after one step each to warm up.
Prints the medians, their ratio, and the peak of the memory that a step takes (measured in processes of their own).
"""

import argparse
import copy
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from datasets import Dataset, Image
from PIL import Image as Pictures
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration
from transformers.utils import logging
from trl.trainer.grpo_config import GRPOConfig
from trl.trainer.grpo_trainer import GRPOTrainer

from aot_core.defender.loading import load_processor
from aot_core.defender.shared_prompt_trainer import SharedPromptTrainer

QUESTION = "Which of the shapes stands to the left of the large red ring?\nA. the blue disc\nB. the green cross"
PIXELS_A_TOKEN = 16
"""Side of the square that becomes one visual token."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--visual", type=int, nargs="+", default=[64, 256, 1024, 2048])
    parser.add_argument("--groups", type=int, nargs="+", default=[4, 8, 16])
    parser.add_argument("--answers", type=int, nargs="+", default=[12], help="tokens an answer")
    parser.add_argument("--prompts", type=int, default=1, help="prompts a step")
    parser.add_argument("--iterations", type=int, default=2, help="updates on the same answers")
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--no-memory", action="store_true", help="leave the measurement of memory out")
    parser.add_argument("--measure-memory", nargs=2, metavar=("KIND", "SETTINGS"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    logging.set_verbosity_error()
    if arguments.measure_memory:
        kind, settings = arguments.measure_memory
        print(json.dumps(peak_memory(kind, **json.loads(settings))))
        return
    print("visual  prompt  answer   G   stock s   ours s  CPU s stock/ours   ratio  CPU ratio   peak MiB stock/ours")
    for visual in arguments.visual:
        for answer in arguments.answers:
            for group in arguments.groups:
                row(visual, answer, group, arguments)


def row(visual: int, answer: int, group: int, arguments: argparse.Namespace) -> None:
    settings = {
        "visual": visual,
        "answer": answer,
        "group": group,
        "prompts": arguments.prompts,
        "iterations": arguments.iterations,
        "hidden": arguments.hidden,
        "layers": arguments.layers,
    }
    with tempfile.TemporaryDirectory() as folder:
        trainers = [build(kind, Path(folder), **settings) for kind in ("stock", "ours")]
        for trainer in trainers:
            step(trainer)
        wall, cpu = [[], []], [[], []]
        for _ in range(arguments.repeats):
            for i, trainer in enumerate(trainers):
                started, used = time.perf_counter(), time.process_time()
                step(trainer)
                wall[i].append(time.perf_counter() - started)
                cpu[i].append(time.process_time() - used)
        prompt = trainers[0].last_prompt_length  # type: ignore[attr-defined]
    (stock, ours), (stock_cpu, ours_cpu) = (list(map(median, x)) for x in (wall, cpu))
    memory = "" if arguments.no_memory else "/".join(f"{memory_of(kind, settings):.0f}" for kind in ("stock", "ours"))
    print(
        f"{visual:6} {prompt:7} {answer:7} {group:3} {stock:9.2f} {ours:8.2f} {stock_cpu:9.2f}/{ours_cpu:.2f}"
        f" {stock / ours:12.2f} {stock_cpu / ours_cpu:10.2f} {memory:>16}",
        flush=True,
    )


def build(kind: str, folder: Path, *, visual: int, answer: int, group: int, prompts: int, iterations: int, **size: int):
    """A trainer, ready to step; `kind` is stock or ours."""
    processor = load_processor("aot-tiny-vl")
    image = picture(visual)
    area = image.width * image.height
    processor.image_processor.size = {"shortest_edge": area, "longest_edge": area}
    rows = []
    for i in range(prompts):
        path = folder / f"{kind}-{i}.png"
        picture(visual, seed=i).save(path)
        rows.append({"image": str(path), "prompt": [{"role": "user", "content": QUESTION}]})
    arguments = GRPOConfig(
        output_dir=str(folder / kind),
        per_device_train_batch_size=prompts * group,
        num_generations=group,
        num_iterations=iterations,
        max_steps=10_000,
        max_completion_length=answer,
        generation_kwargs={"min_new_tokens": answer},
        loss_type="dapo",
        beta=0.0,
        learning_rate=1e-6,
        use_cpu=not torch.cuda.is_available(),
        bf16=torch.cuda.is_available(),
        gradient_checkpointing=False,
        report_to="none",
        save_strategy="no",
    )
    base = {"stock": GRPOTrainer, "ours": SharedPromptTrainer}[kind]

    class Trainer(base):  # type: ignore[misc, valid-type]
        last_prompt_length = 0

        def _prepare_inputs(self, batch: Any) -> Any:
            made = super()._prepare_inputs(batch)
            type(self).last_prompt_length = made["prompt_ids"].shape[1]
            return made

    trainer = Trainer(
        model=model_of(processor, **size),
        reward_funcs=lambda completion_ids, **_: [float(sum(ids) % 5) for ids in completion_ids],
        args=arguments,
        train_dataset=Dataset.from_list(rows).cast_column("image", Image(mode="RGB")),
        processing_class=processor,
    )
    trainer.create_optimizer()
    trainer.current_gradient_accumulation_steps = 1
    trainer.loader = iter(trainer.get_train_dataloader())
    return trainer


def step(trainer: Any) -> None:
    """Generate once, update as often as configured: what `trainer.train()` does between two generations."""
    trainer.model.train()
    for _ in range(trainer.num_iterations):
        batch = next(trainer.loader, None)
        if batch is None:
            trainer.loader = iter(trainer.get_train_dataloader())
            batch = next(trainer.loader)
        trainer.training_step(trainer.model, batch, None)
        trainer.optimizer.step()
        trainer.optimizer.zero_grad()


def picture(visual: int, seed: int = 0) -> Pictures.Image:
    """An image of `visual` visual tokens, as square as can be."""
    height = next(h for h in range(int(visual**0.5), 0, -1) if visual % h == 0)
    sides = (height * PIXELS_A_TOKEN, visual // height * PIXELS_A_TOKEN, 3)
    return Pictures.fromarray(np.random.default_rng(seed).integers(0, 255, sides, dtype=np.uint8))


def model_of(processor: Any, hidden: int, layers: int) -> Any:
    """A Qwen2.5-VL of random weights in the 7B model's proportions, with the tiny model's vocabulary."""
    vocabulary = processor.tokenizer.get_vocab()
    heads = hidden // 32
    config = Qwen2_5_VLConfig(
        vision_config={
            "depth": 4,
            "hidden_size": hidden // 2,
            "intermediate_size": hidden,
            "num_heads": heads // 2,
            "patch_size": PIXELS_A_TOKEN // 2,
            "spatial_merge_size": 2,
            "out_hidden_size": hidden,
            "window_size": PIXELS_A_TOKEN * 4,
            "fullatt_block_indexes": [3],
        },
        text_config={
            "vocab_size": len(processor.tokenizer),
            "hidden_size": hidden,
            "intermediate_size": hidden * 5,
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "num_key_value_heads": max(1, heads // 4),
            "max_position_embeddings": 8192,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [4, 6, 6]},
            "pad_token_id": processor.tokenizer.pad_token_id,
        },
        image_token_id=vocabulary["<|image_pad|>"],
        video_token_id=vocabulary["<|video_pad|>"],
        vision_start_token_id=vocabulary["<|vision_start|>"],
        vision_end_token_id=vocabulary["<|vision_end|>"],
    )
    torch.manual_seed(0)
    return copy.deepcopy(Qwen2_5_VLForConditionalGeneration(config))


def memory_of(kind: str, settings: dict[str, int]) -> float:
    """MiB that a step takes on top of the loaded trainer, measured in a process of its own."""
    command = [sys.executable, __file__, "--measure-memory", kind, json.dumps(settings)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1])


def peak_memory(kind: str, **settings: int) -> float:
    with tempfile.TemporaryDirectory() as folder:
        trainer = build(kind, Path(folder), **settings)
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
            held = torch.cuda.memory_allocated()
            step(trainer)
            return (torch.cuda.max_memory_allocated() - held) / 2**20
        Path("/proc/self/clear_refs").write_text("5")  # forget the peak of loading
        held = resident("VmRSS")
        step(trainer)
        return resident("VmHWM") - held


def resident(what: str) -> float:
    """MiB, as Linux counts them: VmRSS now, VmHWM at the most."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(what)) / 1024


if __name__ == "__main__":
    main()
