"""The shared prompt against the GRPOTrainer that is installed: the same answers, losses, gradients and weights.

Whole trainings run side by side from one seed: two generations of three unlike prompts (other lengths, other image
shapes, so padding and 3D positions differ), two passes over each. float64 agrees to 1e-10, float32 to 1e-5.
"""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import trl.trainer.utils
from datasets import Dataset, Image
from peft import LoraConfig, get_peft_model
from PIL import Image as Pictures
from transformers.models.qwen2_5_vl import modeling_qwen2_5_vl
from trl.trainer.grpo_config import GRPOConfig
from trl.trainer.grpo_trainer import GRPOTrainer

from aot_core.defender.shared_prompt_trainer import SharedPromptTrainer

TEXTS = ("Is there a red ring?", "How many are there of all the blue discs?\nA. 1\nB. 2", "Where?")
SIZES = ((64, 64), (96, 32), (48, 80))


class Float64Head(torch.autograd.Function):
    """TRL's fused head computes in float32 whatever it is given; here is the same function in full precision."""

    @staticmethod
    def forward(ctx: Any, hidden: Any, weight: Any, _bias: Any, targets: Any, temperature: float, *_: Any) -> Any:
        logprobs = (hidden @ weight.T / temperature).log_softmax(-1)
        ctx.save_for_backward(hidden, weight, targets, logprobs)
        ctx.temperature = temperature
        entropy = -(logprobs.exp() * logprobs).sum(-1)
        return logprobs.gather(-1, targets[:, None])[:, 0], entropy, None, None, None

    @staticmethod
    def backward(ctx: Any, gradient: Any, *_: Any) -> Any:  # type: ignore[override]
        hidden, weight, targets, logprobs = ctx.saved_tensors
        of_logits = -logprobs.exp()
        of_logits.scatter_add_(1, targets[:, None], torch.ones_like(targets[:, None], dtype=hidden.dtype))
        of_logits *= gradient[:, None] / ctx.temperature
        return of_logits @ weight, of_logits.T @ hidden, *[None] * 7


@pytest.fixture
def rows(tmp_path: Path) -> Dataset:
    rng = np.random.default_rng(0)
    paths = []
    for i, (width, height) in enumerate(SIZES):
        Pictures.fromarray(rng.integers(0, 255, (height, width, 3), dtype=np.uint8)).save(tmp_path / f"{i}.png")
        paths.append(str(tmp_path / f"{i}.png"))
    prompts = [[{"role": "user", "content": text}] for text in TEXTS]
    return Dataset.from_dict({"image": paths, "prompt": prompts}).cast_column("image", Image(mode="RGB"))


def any_reward(completion_ids: list[list[int]], **_: Any) -> list[float]:
    """Something that differs within a group."""
    return [float(sum(ids) % 7) for ids in completion_ids]


def train(
    kind: type[GRPOTrainer],
    model: Any,
    processor: Any,
    rows: Dataset,
    folder: Path,
    ours: dict[str, Any] | None = None,
    **arguments: Any,
) -> Any:
    """Two generations, two passes each; returns trainer and, for every loss, its value."""
    settings: dict[str, Any] = {
        "output_dir": str(folder / kind.__name__),
        "per_device_train_batch_size": 12,
        "num_generations": 4,
        "num_iterations": 2,
        "max_steps": 4,
        "learning_rate": 1e-3,
        "max_completion_length": 6,
        "temperature": 1.3,
        "loss_type": "dapo",
        "epsilon": 0.02,
        "epsilon_high": 0.03,
        "beta": 0.0,
        "seed": 7,
        "use_cpu": True,
        "bf16": False,
        "gradient_checkpointing": False,
        "report_to": "none",
        "save_strategy": "no",
        "logging_steps": 1,
        "disable_tqdm": True,
        "optim": "sgd",  # a step in proportion to the gradient: Adam would blow up its last bits where it is near 0
        "generation_kwargs": {"eos_token_id": [5, 9, 40]},  # so that answers differ in length
    } | arguments
    losses: list[float] = []

    class Recording(kind):  # type: ignore[misc, valid-type]
        def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
            loss = super().compute_loss(*args, **kwargs)
            losses.append(loss.item())
            return loss

    torch.manual_seed(0)
    trainer = Recording(
        model=model,
        reward_funcs=any_reward,
        args=GRPOConfig(**settings),
        train_dataset=rows,
        processing_class=processor,
        **(ours or {}),
    )
    trainer.eos_token_ids = [5, 9, 40]
    trainer.train()
    return trainer, losses


@pytest.fixture
def pair(untrained: Any) -> Any:
    model, processor = copy.deepcopy(untrained)
    processor.image_processor.size = {"shortest_edge": 1024, "longest_edge": 16384}
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.5)  # away from the even odds of fresh weights
    return model, processor


def compare(pair: Any, rows: Dataset, folder: Path, tolerance: float, lora: bool = False, **arguments: Any) -> None:
    found = []
    for kind in (GRPOTrainer, SharedPromptTrainer):
        model, processor = copy.deepcopy(pair)
        if lora:
            torch.manual_seed(1)
            model = get_peft_model(
                model,
                LoraConfig(r=2, target_modules=["q_proj", "v_proj", "down_proj", "qkv"], init_lora_weights=False),
                autocast_adapter_dtype=False,
            )
        elif arguments.get("beta"):  # the reference is loaded from where the model came from
            model.save_pretrained(folder / "base")
            model.config._name_or_path = str(folder / "base")
        trainer, losses = train(kind, model, processor, rows, folder, **arguments)
        weights = {name: p.detach() for name, p in trainer.model.named_parameters()}
        history = [entry for entry in trainer.state.log_history if "loss" in entry]
        found.append((losses, weights, history))
    (stock_losses, stock, stock_history), (losses, weights, history) = found
    micro_batches = len(losses) // 4
    for step in range(4):  # the order of a step's micro-batches may differ; their sum may not
        part = slice(step * micro_batches, (step + 1) * micro_batches)
        assert sum(losses[part]) == pytest.approx(sum(stock_losses[part]), rel=tolerance, abs=tolerance)
    for name, value in stock.items():
        torch.testing.assert_close(
            weights[name], value, rtol=tolerance, atol=tolerance, msg=lambda m, n=name: f"{n}: {m}"
        )
    for ours, theirs in zip(history, stock_history, strict=True):
        assert ours["grad_norm"] == pytest.approx(theirs["grad_norm"], rel=10 * tolerance)
        for name in ("reward", "completions/mean_length"):  # of the steps that generate
            assert ours.get(name) == theirs.get(name), name
    if arguments.get("loss_type") != "sapo":  # which has no clip
        clipped = "cispo_clip_ratio" if arguments.get("loss_type") == "cispo" else "clip_ratio/region_mean"
        assert any(entry[clipped] > 0 for entry in history), "the clip is alive"
    assert any(entry.get("completions/mean_length", 6.0) < 6.0 for entry in history), "some answers end early"


@pytest.fixture
def all_in_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the libraries compute in float32 whatever they are given, in both trainers, they no longer do."""

    def norm(self: Any, hidden: torch.Tensor) -> torch.Tensor:
        return self.weight * hidden * torch.rsqrt(hidden.pow(2).mean(-1, keepdim=True) + self.variance_epsilon)

    def rotate(q: Any, k: Any, cos: Any, sin: Any) -> Any:
        cos, sin = cos.unsqueeze(-2), sin.unsqueeze(-2)
        half = modeling_qwen2_5_vl.rotate_half
        return q * cos + half(q) * sin, k * cos + half(k) * sin

    monkeypatch.setattr(trl.trainer.utils, "_ChunkedLogProbFunction", Float64Head)
    monkeypatch.setattr(modeling_qwen2_5_vl.Qwen2_5_VLRMSNorm, "forward", norm)
    monkeypatch.setattr(modeling_qwen2_5_vl, "apply_rotary_pos_emb_vision", rotate)


@pytest.mark.usefixtures("all_in_float64")
@pytest.mark.parametrize(
    ("lora", "arguments"),
    [
        (False, {}),
        (True, {}),
        (False, {"gradient_checkpointing": True}),
        (True, {"gradient_checkpointing": True}),
        (False, {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 3}),
        (False, {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 6}),
        (True, {"beta": 0.1}),
        (False, {"beta": 0.1}),
        (False, {"mask_truncated_completions": True}),
    ],
    ids=[
        "full",
        "lora",
        "checkpointing",
        "lora+checkpointing",
        "whole groups",
        "cut groups",
        "adapter off",
        "reference",
        "truncated",
    ],
)
def test_float64(lora: bool, arguments: Any, pair: Any, rows: Dataset, tmp_path: Path) -> None:
    compare((pair[0].double(), pair[1]), rows, tmp_path, 1e-10, lora, **arguments)


WHOLE, CUT = {}, {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 3}


@pytest.mark.usefixtures("all_in_float64")
@pytest.mark.parametrize("batches", [WHOLE, CUT], ids=["whole", "cut"])
@pytest.mark.parametrize(
    "arguments",
    [
        {"loss_type": "dr_grpo"},
        {"loss_type": "cispo", "epsilon_high": 1.03},
        {"loss_type": "grpo", "importance_sampling_level": "sequence"},
        {"loss_type": "sapo"},
        {"loss_type": "dapo", "delta": 1.04},
        {"loss_type": "dr_grpo", "delta": 1.04},
        {"loss_type": "grpo", "importance_sampling_level": "sequence", "delta": 1.04},
    ],
    ids=["dr_grpo", "cispo", "gspo", "sapo", "dual clip", "dr_grpo+dual clip", "gspo+dual clip"],
)
def test_every_loss_in_float64(arguments: Any, batches: Any, pair: Any, rows: Dataset, tmp_path: Path) -> None:
    compare((pair[0].double(), pair[1]), rows, tmp_path, 1e-10, **arguments, **batches)


@pytest.mark.usefixtures("all_in_float64")
@pytest.mark.parametrize("loss", ["dapo", "dr_grpo", "cispo", "grpo", "sapo"])
def test_groups_that_are_flat_count_as_they_do_in_stock(
    loss: str, pair: Any, rows: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mean over answers counts those without advantage; a sum over tokens may skip them."""

    def half_flat(completion_ids: list[list[int]], **_: Any) -> list[float]:
        return [float(sum(ids) % 7) if i // 4 else 1.0 for i, ids in enumerate(completion_ids)]

    monkeypatch.setattr(f"{__name__}.any_reward", half_flat)
    compare((pair[0].double(), pair[1]), rows, tmp_path, 1e-10, loss_type=loss, epsilon_high=0.03 + (loss == "cispo"))


@pytest.mark.parametrize("lora", [False, True])
def test_float32(lora: bool, pair: Any, rows: Dataset, tmp_path: Path) -> None:
    compare(pair, rows, tmp_path, 1e-5, lora)


@pytest.mark.parametrize("pictures", [0, 2])
def test_another_number_of_pictures_than_one_is_refused_and_left_to_trl(
    pictures: int, pair: Any, rows: Dataset, tmp_path: Path
) -> None:
    images = [[image] * pictures for image in rows["image"]]
    many = Dataset.from_dict({"prompt": rows["prompt"], **({"images": images} if pictures else {})})
    with pytest.raises(ValueError, match=f"prompt 0 of a generation has {pictures} pictures.*share_prompts = false"):
        train(SharedPromptTrainer, *copy.deepcopy(pair), many, tmp_path)
    unshared = {"share_prompts": False}
    _, losses = train(SharedPromptTrainer, *copy.deepcopy(pair), many, tmp_path, unshared)
    _, stock = train(GRPOTrainer, *copy.deepcopy(pair), many, tmp_path)
    assert losses == stock
