r"""The Defender's warm start: TRL's SFTTrainer on clean images, questions and `\boxed{X}`; loss on the answer alone.

Samples and their data set's folder go in, a trained model and its processor come out.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset, Image
from transformers import PrinterCallback
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import SFTTrainer

from aot_core.contracts.scene import Question, Sample
from aot_core.contracts.warm_start_defender import WarmStartDefenderConfig, WarmStartDefenderOutputs
from aot_core.defender.checkpoints import save
from aot_core.defender.loading import Model, Processor
from aot_core.defender.training import FiniteLoss, TrackerCallback, common_arguments, full_weights, mean_of, one_gpu
from aot_core.rl.precision import warn_of_rounding
from aot_core.tracking.protocol import Tracker
from aot_core.worlds.images import safe_path

STAGE = "warm_start_defender"


class WarmStartTrainer(FiniteLoss, SFTTrainer):
    """TRL's trainer, stopping at a loss that is not finite."""

    stage = STAGE


def warm_start(
    model: Model,
    processor: Processor,
    samples: Sequence[Sample],
    folder: Path,
    config: WarmStartDefenderConfig,
    *,
    scratch: Path,
    device: str,
    tracker: Tracker,
    output: Path | None = None,
    base_name: str = "",
) -> WarmStartDefenderOutputs:
    """Train `model` in place on the samples' clean images. Raises NonFiniteLossError.

    Args:
        output: the artifact's folder, where the trained model is written; None: nowhere.
        base_name: the base's, which an adapter's config gives.
    """
    chosen = samples[: config.samples]
    record = TrackerCallback(STAGE, tracker, _figures)
    arguments = SFTConfig(
        **common_arguments(scratch, config.model, device, config.seed),
        num_train_epochs=config.epochs,
        per_device_train_batch_size=config.batch_size,
        gradient_accumulation_steps=config.gradient_accumulation // config.processes,
        learning_rate=config.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=config.warmup_ratio,
        max_grad_norm=config.max_grad_norm,
        completion_only_loss=True,
        max_length=None,
    )
    one_gpu(arguments)
    trainer = WarmStartTrainer(
        model=model,
        args=arguments,
        train_dataset=sft_dataset(chosen, folder),
        processing_class=processor,
        callbacks=[record],
    )
    trainer.remove_callback(PrinterCallback)
    if not (trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled):
        warn_of_rounding(STAGE, config.model, config.learning_rate)
    trainer.train()
    if output is not None:
        save(model, processor, output, base_name, full_weights(trainer))
    return WarmStartDefenderOutputs(
        samples=len(chosen),
        updates=trainer.state.global_step,
        first_loss=mean_of(record.history, "sft_loss", first=0.1),
        last_loss=mean_of(record.history, "sft_loss", last=0.1),
    )


def sft_dataset(samples: Sequence[Sample], folder: Path) -> Dataset:
    r"""Prompt/completion rows: the clean image, `question.prompt`, `\boxed{X}`."""
    rows = {
        "image": [str(safe_path(folder, sample.image)) for sample in samples],
        "prompt": [user_turn(sample.question) for sample in samples],
        "completion": [
            [{"role": "assistant", "content": f"\\boxed{{{sample.question.answer}}}"}] for sample in samples
        ],
    }
    return Dataset.from_dict(rows).cast_column("image", Image(mode="RGB"))


def user_turn(question: Question) -> list[dict[str, Any]]:
    """The question as a conversation's one message; the trainer puts the image before the text."""
    return [{"role": "user", "content": question.prompt}]


def _figures(logs: dict[str, float]) -> dict[str, float]:
    wanted = {"loss": "sft_loss", "learning_rate": "sft_learning_rate", "mean_token_accuracy": "sft_token_accuracy"}
    return {name: logs[key] for key, name in wanted.items() if key in logs}
