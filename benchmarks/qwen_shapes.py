"""One GRPO step of a Qwen2.5-VL with the 7B's or the 3B's layer shapes and random weights.

    python benchmarks/qwen_shapes.py                       # on a CPU, reduced depth: is the step stock TRL's?
    python benchmarks/qwen_shapes.py --measure             # tokens a second, MFU and peak memory of one step
    python benchmarks/qwen_shapes.py --measure --device cuda --full --peak-tflops 990 --visual 1296 --group 8

Compares the first update's gradients, its loss and the second update's loss of the shared prompt with those of the
installed TRL. With --measure: the shared prompt's step at bfloat16 and gradient checkpointing on a GPU, float32 on a
CPU. MFU is the operations that the model needs (a language model's update three forwards' cost, two where only an
adapter is trained; a frozen vision tower's one; what checkpointing does again is not counted) by the time and the
peak. --full is the 7B's depth and vocabulary (8.3 thousand million weights, LoRA). Weights are random, so its answers
are noise: only shapes, time and memory are the model's.
"""

import argparse
import copy
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset, Image
from defender import QUESTION, resident
from peft import LoraConfig, get_peft_model
from PIL import Image as Pictures
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration, Qwen2VLImageProcessorPil
from transformers.utils import logging
from trl.trainer.grpo_config import GRPOConfig
from trl.trainer.grpo_trainer import GRPOTrainer

from aot_core.commands.estimate import PUBLISHED, Shape
from aot_core.defender.loading import ImageTextProcessor, load_processor
from aot_core.defender.shared_prompt_trainer import SharedPromptTrainer

MODELS = {"7b": PUBLISHED["Qwen/Qwen2.5-VL-7B-Instruct"], "3b": PUBLISHED["Qwen/Qwen2.5-VL-3B-Instruct"]}
TRAINERS: dict[str, type[GRPOTrainer]] = {"shared": SharedPromptTrainer, "stock": GRPOTrainer}
PIXELS_A_TOKEN = 28
"""A patch's side by the patches that are merged into a token, of both models."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=tuple(MODELS), default="7b")
    parser.add_argument("--trainer", choices=tuple(TRAINERS), default="shared", help="which --measure measures")
    parser.add_argument("--layers", type=int, default=2, help="of the language model; the 7B has 28")
    parser.add_argument("--blocks", type=int, default=2, help="of the vision tower, the last with full attention; 32")
    parser.add_argument("--full", action="store_true", help="the 7B's depth and vocabulary")
    parser.add_argument("--visual", type=int, default=64, help="visual tokens, a square's")
    parser.add_argument("--group", type=int, default=4)
    parser.add_argument("--answer", type=int, default=8, help="tokens an answer")
    parser.add_argument("--rank", type=int, default=8, help="LoRA's; 0 trains all weights")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--measure", action="store_true", help="time, MFU and memory instead of the comparison")
    parser.add_argument("--peak-tflops", type=float, help="the device's; a CPU's is measured")
    parser.add_argument("--steps", type=int, default=3, help="measured steps, behind one to warm up")
    arguments = parser.parse_args()
    if arguments.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("--device cuda: this machine has no usable GPU; leave it out for the CPU")
    if arguments.device == "cuda" and arguments.measure and not arguments.peak_tflops:
        raise SystemExit("--peak-tflops: give the card's dense peak at bfloat16 (an H100's is 990)")
    logging.set_verbosity_error()
    processor = processor_of(arguments.visual)
    shape = shape_of(arguments, len(processor.tokenizer))
    print(
        f"{shape.language + shape.visual:,} weights, {arguments.visual} visual tokens, G = {arguments.group}", end=", "
    )
    print(f"answers of {arguments.answer} tokens, " + (f"LoRA of rank {arguments.rank}" if arguments.rank else "full"))
    if arguments.measure:
        show(measure(shape, processor, arguments))
    else:
        compare(shape, processor, arguments)


def shape_of(arguments: argparse.Namespace, vocabulary: int) -> Shape:
    published = MODELS[arguments.model]
    text, vision = dict(published["text_config"]), dict(published["vision_config"])
    if not arguments.full:
        text |= {"num_hidden_layers": arguments.layers, "vocab_size": vocabulary}
        vision |= {"depth": arguments.blocks, "fullatt_block_indexes": [arguments.blocks - 1]}
    return Shape(text, vision, published["tie_word_embeddings"])


def processor_of(visual: int) -> ImageTextProcessor:
    """The tiny model's tokenizer with the 7B's patches."""
    tiny, area = load_processor("aot-tiny-vl"), visual * PIXELS_A_TOKEN**2
    images = Qwen2VLImageProcessorPil(patch_size=14, merge_size=2, size={"shortest_edge": area, "longest_edge": area})
    processor = ImageTextProcessor(images, tiny.tokenizer, chat_template=tiny.chat_template)
    processor.tokenizer.padding_side = "left"
    return processor


def model_of(shape: Shape, processor: Any, arguments: argparse.Namespace) -> Any:
    """Random weights, on the device."""
    tokens = processor.tokenizer.get_vocab()
    config = Qwen2_5_VLConfig(
        vision_config=shape.vision,
        text_config=shape.text
        | {
            "max_position_embeddings": 32768,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]},
            "pad_token_id": processor.tokenizer.pad_token_id,
        },
        image_token_id=tokens["<|image_pad|>"],
        video_token_id=tokens["<|video_pad|>"],
        vision_start_token_id=tokens["<|vision_start|>"],
        vision_end_token_id=tokens["<|vision_end|>"],
        tie_word_embeddings=shape.tied,
        dtype="bfloat16" if arguments.device == "cuda" else "float32",
    )
    torch.manual_seed(0)
    with torch.device(arguments.device):
        model: Any = Qwen2_5_VLForConditionalGeneration._from_config(config)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(".visual." not in f".{name}")
    if not arguments.rank:
        return model
    lora = LoraConfig(
        r=arguments.rank,
        target_modules=r".*language_model.*\.(q|k|v|o|gate|up|down)_proj",
        init_lora_weights=False,  # a fresh adapter's gradient is half zeros
    )
    return get_peft_model(model, lora)


def trainer_of(kind: type[GRPOTrainer], model: Any, processor: Any, folder: Path, a: argparse.Namespace) -> Any:
    side = round(a.visual**0.5) * PIXELS_A_TOKEN
    pixels = np.random.default_rng(0).integers(0, 255, (side, side, 3), dtype=np.uint8)
    Pictures.fromarray(pixels).save(folder / "picture.png")
    row = {"image": str(folder / "picture.png"), "prompt": [{"role": "user", "content": QUESTION}]}
    torch.manual_seed(1)
    trainer: Any = kind(
        model=model,
        reward_funcs=lambda completion_ids, **_: [float(sum(ids) % 5) for ids in completion_ids],
        args=GRPOConfig(
            output_dir=str(folder / kind.__name__),
            per_device_train_batch_size=a.group,
            num_generations=a.group,
            num_iterations=2,
            max_steps=10_000,
            max_completion_length=a.answer,
            generation_kwargs={"min_new_tokens": a.answer},
            loss_type="dapo",
            beta=0.0,
            optim="sgd",
            use_cpu=a.device == "cpu",
            bf16=a.device == "cuda",
            gradient_checkpointing=a.device == "cuda",
            report_to="none",
            save_strategy="no",
        ),
        train_dataset=Dataset.from_list([row] * 64).cast_column("image", Image(mode="RGB")),
        processing_class=processor,
    )
    trainer.current_gradient_accumulation_steps = 1
    return trainer


def two_updates(trainer: Any) -> tuple[list[float], dict[str, torch.Tensor]]:
    """Generate once and update twice; the two losses and the first update's gradients."""
    trainer.model.train()
    losses, gradients, batches = [], {}, iter(trainer.get_train_dataloader())
    trained = {name: p for name, p in trainer.model.named_parameters() if p.requires_grad}
    for _ in range(2):
        losses.append(float(trainer.training_step(trainer.model, next(batches), None)))
        if not gradients:
            gradients = {name: p.grad.clone() for name, p in trained.items() if p.grad is not None}
        with torch.no_grad():
            for parameter in trained.values():
                if parameter.grad is not None:
                    parameter -= 0.05 * parameter.grad
                parameter.grad = None
    return losses, gradients


def compare(shape: Shape, processor: Any, arguments: argparse.Namespace) -> None:
    found: list[Any] = []
    with tempfile.TemporaryDirectory() as folder:
        for kind in (GRPOTrainer, SharedPromptTrainer):
            model = model_of(shape, copy.deepcopy(processor), arguments)
            trainer = trainer_of(kind, model, processor, Path(folder), arguments)
            used = time.process_time()
            losses, gradients = two_updates(trainer)
            found.append((losses, gradients, time.process_time() - used))
            del model, trainer
    (stock_losses, stock, stock_seconds), (losses, gradients, seconds) = found
    assert stock.keys() == gradients.keys() and stock, "the same weights are trained"
    apart = {name: float((gradients[name] - g).norm() / g.norm()) for name, g in stock.items() if g.norm() > 0}
    worst = max(apart, key=lambda name: apart[name])
    print(f"gradients of {len(apart)} tensors: at most {apart[worst]:.1e} apart (relative norm; {worst})")
    for number, (theirs, ours) in enumerate(zip(stock_losses, losses, strict=True), 1):
        print(f"loss of update {number}: stock {theirs:+.8f}, shared {ours:+.8f}, {abs(ours - theirs):.1e} apart")
    print(f"processor seconds: stock {stock_seconds:.1f}, shared {seconds:.1f}, {stock_seconds / seconds:.1f} times")


def measure(shape: Shape, processor: Any, arguments: argparse.Namespace) -> dict[str, float]:
    """Seconds (wall clock on a GPU, CPU time on a CPU), tokens a second, MFU and peak memory (GiB) of one step."""
    cuda, kind = arguments.device == "cuda", TRAINERS[arguments.trainer]
    model = model_of(shape, processor, arguments)
    with tempfile.TemporaryDirectory() as folder:
        trainer = trainer_of(kind, model, processor, Path(folder), arguments)
        two_updates(trainer)
        if cuda:
            torch.cuda.reset_peak_memory_stats()
            torch.cuda.synchronize()
        started = time.perf_counter() if cuda else time.process_time()
        for _ in range(arguments.steps):
            trainer._buffered_inputs, trainer._generated_at = None, None
            two_updates(trainer)
        if cuda:
            torch.cuda.synchronize()
        seconds = ((time.perf_counter() if cuda else time.process_time()) - started) / arguments.steps
    prompt = arguments.visual + len(processor.tokenizer(QUESTION).input_ids) + 8
    answers = arguments.group * arguments.answer
    language = shape.forward(prompt, prompt / 2, 0, 0, 0)
    language += shape.forward(answers, prompt + arguments.answer / 2, answers, 0, 0)
    vision = shape.forward(0, 0, 0, 1, arguments.visual)
    operations = language * (1 + 2 * (2 if arguments.rank else 3)) + vision * 3
    speed = arguments.peak_tflops * 1e12 if arguments.peak_tflops else cpu_speed()
    return {
        "seconds": seconds,
        "tokens_a_second": (prompt + answers) * 3 / seconds,
        "tokens_a_second_as_stock_counts": (prompt * arguments.group + answers) * 3 / seconds,
        "mfu": operations / seconds / speed,
        "peak_gib": torch.cuda.max_memory_allocated() / 2**30 if cuda else resident("VmHWM") / 1024,
        "tflops": speed / 1e12,
    }


def show(found: dict[str, float]) -> None:
    print(f"one step (a generation, two updates): {found['seconds']:.2f} s")
    print(f"{found['tokens_a_second']:,.0f} tokens a second (prompt once, answers; generation and two updates)")
    print(f"{found['tokens_a_second_as_stock_counts']:,.0f} as stock would count them (a prompt an answer)")
    print(f"MFU {found['mfu']:.0%} of {found['tflops']:,.3f} TFLOP/s, peak memory {found['peak_gib']:.1f} GiB")


def cpu_speed() -> float:
    """Operations a second of one large float32 product, the best of five."""
    a, best = torch.randn(2048, 2048), float("inf")
    for _ in range(5):
        used = time.process_time()
        torch.mm(a, a)
        best = min(best, time.process_time() - used)
    return 2 * 2048**3 / best


if __name__ == "__main__":
    main()
