"""What the Defender's two trainers (SFT and GRPO, both TRL's) have in common.

Trainer logs go to the stage's tracker as `defender/NAME`. A loss or a gradient that is not finite ends the stage before
any weight is written, with an error that names the step and the fix.
"""

import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import torch
from tqdm import tqdm
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from aot_core.contracts.errors import NonFiniteLossError
from aot_core.contracts.learning import ModelSettings
from aot_core.tracking.protocol import Tracker

# TRL 1.16 itself still passes `gradient_checkpointing`: the user cannot do anything about it.
warnings.filterwarnings("ignore", message=".*gradient_checkpointing.* is deprecated", category=FutureWarning)


class FiniteLoss:
    """Mixin placed before a Trainer: checks every loss before the backward pass."""

    stage: str = ""
    """The stage's name, for the message."""

    def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
        result = super().compute_loss(*args, **kwargs)  # type: ignore[misc]
        loss = result[0] if isinstance(result, tuple) else result
        if not torch.isfinite(loss):
            step = self.state.global_step  # type: ignore[attr-defined]
            raise _not_finite(self.stage, "loss", loss.item(), step)
        return result


def _not_finite(stage: str, what: str, value: float, update: int) -> NonFiniteLossError:
    return NonFiniteLossError(
        f"{stage}: the {what} became {value} at update {update}; no model was written. Lower {stage}.learning_rate or "
        f"{stage}.max_grad_norm, or train in float32 ({stage}.model.dtype)"
    )


# ruff: noqa: ARG002  the trainer hands every hook the same arguments
class TrackerCallback(TrainerCallback):
    """Hands the trainer's figures to a tracker, live, keeps them for the stage's summary, and shows the progress.

    Raises NonFiniteLossError for a gradient norm that is not finite: the loss alone can look sound at a last update.
    """

    def __init__(self, stage: str, tracker: Tracker, select: Callable[[dict[str, float]], dict[str, float]]) -> None:
        """
        Args:
            select: from the trainer's log entry to what is tracked, without the family's prefix; an empty result is
                not logged.
        """
        self._stage = stage
        self._tracker = tracker
        self._select = select
        self._bar: tqdm | None = None
        self.history: list[dict[str, float]] = []

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        shown = state.is_world_process_zero
        self._bar = tqdm(total=state.max_steps, desc=self._stage, disable=None if shown else True)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if self._bar is not None:
            self._bar.update()

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self._bar is not None:
            self._bar.close()

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        logs = logs or {}
        # The update has been made with it; the trainer logs before it saves, so no checkpoint holds the result.
        if not math.isfinite(norm := logs.get("grad_norm", 0.0)):
            raise _not_finite(self._stage, "gradient norm", norm, state.global_step)
        figures = self._select(logs)
        if figures:
            self.history.append(figures)
            self._tracker.log_metrics({f"defender/{k}": v for k, v in figures.items()}, step=state.global_step)
            if self._bar is not None:
                self._bar.set_postfix(
                    {k: f"{v:.3g}" for k, v in figures.items() if k in ("reward", "loss", "sft_loss")}
                )


def common_arguments(scratch: Path, settings: ModelSettings, device: str, seed: int) -> dict[str, Any]:
    """The arguments that both trainers share: no checkpoints, no reports, no shuffling of work over processes."""
    return {
        "output_dir": str(scratch / "trainer"),
        "seed": seed,
        "data_seed": seed,
        "use_cpu": device == "cpu",
        "bf16": settings.dtype == "bfloat16" and device != "cpu",
        "fp16": False,
        "gradient_checkpointing": settings.gradient_checkpointing,
        "save_strategy": "no",
        "eval_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,  # TrackerCallback has a bar; the trainer's own prints every log entry
        "logging_strategy": "steps",
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "dataloader_pin_memory": device != "cpu",
        "optim": "adamw_torch",
        "weight_decay": 0.0,
    }


def one_gpu(arguments: TrainingArguments) -> None:
    """A process trains on one GPU: TRL refuses torch's DataParallel, which Trainer uses where it sees several."""
    if arguments.n_gpu > 1:
        arguments._n_gpu = 1


def full_weights(trainer: Trainer) -> dict[str, torch.Tensor] | None:
    """All weights, where the processes have shared them out (FSDP, DeepSpeed): process 0's, the others' are empty. None
    where each holds all. Every process must call it."""
    if not (trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled):
        return None
    return cast(dict[str, torch.Tensor], trainer.accelerator.get_state_dict(trainer.model_wrapped))


def mean_of(history: list[dict[str, float]], key: str, *, first: float = 0.0, last: float = 0.0) -> float:
    """The mean of a figure over the first or last share of a history (at least one entry), or over all of it."""
    values = [entry[key] for entry in history if entry.get(key) is not None]
    if not values:
        return 0.0
    if first:
        values = values[: max(1, round(first * len(values)))]
    elif last:
        values = values[-max(1, round(last * len(values))) :]
    return sum(values) / len(values)
