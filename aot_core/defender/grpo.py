r"""The Defender's round: TRL's GRPOTrainer as DAPO (arXiv 2503.14476) on curated edits, with the paper's reward.

Samples and their folder go in, the trained model and a log of every answer's reward come out; figures are tracked live.
DAPO here is: group-normalised advantages, dynamic sampling (groups that teach nothing are replaced by others), the
ratio clipped to 1 - epsilon_low .. 1 + epsilon_high, no KL, the loss averaged over the tokens of all answers, and, as
a reward term, soft overlong punishment.
"""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from transformers import PrinterCallback
from trl.trainer.grpo_config import GRPOConfig

from aot_core.contracts.defender_round import DefenderRoundConfig, DefenderRoundOutputs, Vllm
from aot_core.contracts.scene import Question, Sample
from aot_core.defender.answering import chat_prompt
from aot_core.defender.checkpoints import save
from aot_core.defender.loading import Model, Processor
from aot_core.defender.rewards import build_terms
from aot_core.defender.round_trainer import RoundTrainer, last_complete_checkpoint
from aot_core.defender.training import TrackerCallback, common_arguments, full_weights, mean_of, one_gpu
from aot_core.defender.vllm_on_cpu import colocated_on_cpu
from aot_core.defender.warm_start import user_turn
from aot_core.rl.precision import warn_of_rounding
from aot_core.tracking.protocol import Tracker
from aot_core.worlds.images import image_size

STAGE = "defender_round"


@dataclass(frozen=True)
class Prompt:
    """A question and the image that it is asked about."""

    image: str
    """Relative to the data set's folder."""
    question: Question


def train_round(
    model: Model,
    processor: Processor,
    samples: Sequence[Sample],
    folder: Path,
    config: DefenderRoundConfig,
    *,
    progress: Path,
    device: str,
    tracker: Tracker,
    output: Path | None = None,
    base_name: str = "",
) -> DefenderRoundOutputs:
    """Train `model` in place, going on from the last checkpoint in `progress` where there is one.

    Args:
        output: the artifact's folder, where the trained model and `rewards.parquet` are written; None: nowhere.
        base_name: the base's, which an adapter's config gives.

    Raises ValueError where there is nothing to train on or a prompt is over a limit, RewardError, RewardTimeoutError,
    NonFiniteLossError.
    """
    prompts = choose_prompts(samples, config.clean_share, config.seed)
    if config.max_prompt_pixels is not None:
        size = dict(processor.image_processor.size)
        processor.image_processor.size = {**size, "longest_edge": config.max_prompt_pixels}
    check_prompts(prompts, folder, processor, config.max_prompt_tokens)
    if config.freeze_vision:
        for name, parameter in model.named_parameters():
            if ".visual." in f".{name}":
                parameter.requires_grad_(False)
    record = TrackerCallback(STAGE, tracker, figures)
    asked = grpo_dataset(prompts)
    arguments = grpo_arguments(config, progress, device)
    with colocated_on_cpu(model.dtype) if config.vllm is not None and device == "cpu" else nullcontext():
        trainer = RoundTrainer(
            model=model,
            folder=folder,
            prompts=asked,
            terms=build_terms(config),
            weights={term.name: term.weight for term in config.rewards},
            dynamic_sampling=config.dynamic_sampling,
            reference_on_cpu=config.reference_on_cpu,
            share_prompts=config.share_prompts,
            args=arguments,
            train_dataset=asked.select(schedule(len(asked), config.generations * config.prompts, config.seed)),
            processing_class=processor,
            callbacks=[record],
        )
    trainer.remove_callback(PrinterCallback)
    if not (trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled):
        warn_of_rounding(STAGE, config.model, config.learning_rate)
    share = config.prompts // config.processes
    trainer.generation_memory.parts = -(-share // min(config.generation_prompts or share, share))
    checkpoint = last_complete_checkpoint(progress)
    trainer.train(resume_from_checkpoint=checkpoint)
    if output is not None:
        trainer.reward_log.write(output)
        save(model, processor, output, base_name, full_weights(trainer))
    history = [figures(entry) for entry in trainer.state.log_history]
    return DefenderRoundOutputs(
        prompts=len(prompts),
        updates=trainer.state.global_step,
        first_reward=mean_of(history, "reward", first=0.1),
        last_reward=mean_of(history, "reward", last=0.1),
        flat_groups=mean_of(history, "flat_groups"),
        entropy=mean_of(history, "entropy", last=0.1),
        clip_ratio=mean_of(history, "clip_ratio"),
        useful_groups=mean_of(history, "useful_groups"),
        generated_tokens=trainer.generated_tokens,
        resumed_at=int(checkpoint.rpartition("-")[2]) if checkpoint else 0,
    )


def grpo_arguments(config: DefenderRoundConfig, progress: Path, device: str) -> GRPOConfig:
    """The round's config in TRL's words: one generation of P * G answers over all processes, `iterations` updates on
    them. Raises ValueError for vLLM where it cannot run."""
    answers = config.prompts // config.processes * config.group_size
    micro_batch = config.micro_batch or answers
    common: dict[str, Any] = common_arguments(progress, config.model, device, config.seed) | {
        "output_dir": str(progress)
    }
    if config.checkpoint_every:
        # Between generations, where nothing is left to be done with the last one's answers.
        common |= {
            "save_strategy": "steps",
            "save_steps": config.checkpoint_every * config.iterations,
            "save_total_limit": 2,
        }
    if config.vllm is not None:
        _check_vllm(config.vllm, device)
        common |= {
            "use_vllm": True,
            "vllm_mode": config.vllm.mode,
            "vllm_server_base_url": config.vllm.server,
            "vllm_gpu_memory_utilization": config.vllm.memory_share,
        }
    arguments = GRPOConfig(
        **common,
        # TRL's GSPO is its GRPO, averaged answer by answer, with one ratio an answer.
        loss_type="grpo" if config.loss == "gspo" else config.loss,
        importance_sampling_level="sequence" if config.loss == "gspo" else "token",
        epsilon=config.epsilon_low,
        # TRL's CISPO takes the bound of the weight itself for its epsilon_high.
        epsilon_high=config.epsilon_high + (config.loss == "cispo"),
        delta=config.clip_ratio_dual,
        beta=config.beta,
        scale_rewards="group",
        reward_weights=[term.weight for term in config.rewards],
        num_generations=config.group_size,
        num_iterations=config.iterations,
        per_device_train_batch_size=micro_batch,
        gradient_accumulation_steps=answers // micro_batch,
        steps_per_generation=answers // micro_batch,
        max_steps=config.generations * config.iterations,
        shuffle_dataset=False,  # the data set is the order
        temperature=config.temperature,
        max_completion_length=config.max_completion_tokens,
        learning_rate=config.learning_rate,
        lr_scheduler_type="linear" if config.schedule == "linear" else "constant_with_warmup",
        warmup_steps=config.warmup_ratio,
        max_grad_norm=config.max_grad_norm,
    )
    one_gpu(arguments)
    return arguments


def _check_vllm(settings: Vllm, device: str) -> None:
    """Raises ValueError where vLLM is not installed, or cannot answer on this device as the settings want."""
    if find_spec("vllm") is None:
        raise ValueError("defender_round.vllm: the package vllm is not installed; install it, or leave vllm out")
    if device != "cpu":
        return
    if settings.mode == "server":
        raise ValueError(
            "defender_round.vllm.mode: this stage runs on the CPU, and TRL sends new weights to a server from GPU to "
            'GPU (NCCL); set mode = "colocate", or leave vllm out'
        )
    if "cpu" not in version("vllm"):
        raise ValueError(
            f"defender_round.vllm: the installed vllm {version('vllm')} is a build for GPUs, and this stage runs on "
            "the CPU; install its build for the CPU (docs/serving.md), or leave vllm out"
        )


def schedule(prompts: int, length: int, seed: int) -> list[int]:
    """Which prompt is asked when: all of them in a new order, again and again. A function of its arguments alone, so
    that a killed round finds its place."""
    rng = np.random.default_rng([seed, 1])
    orders = [rng.permutation(prompts) for _ in range(-(-length // prompts))]
    return np.concatenate(orders)[:length].tolist()


def check_prompts(prompts: Sequence[Prompt], folder: Path, processor: Processor, limit: int | None) -> None:
    """Raises DataError for an image that cannot be read or is over the pixel limit, ValueError for prompts of more than
    `limit` tokens; before anything is trained, for it might else be hours later."""
    sizes = {image: image_size(folder, image) for image in {prompt.image for prompt in prompts}}
    if limit is None:
        return
    too_long = []
    for prompt in prompts:
        width, height = sizes[prompt.image]
        patches = processor.image_processor.get_number_of_image_patches(height, width)
        text = chat_prompt(processor, prompt.question.prompt)
        tokens = len(processor.tokenizer(text).input_ids) - 1 + patches // processor.image_processor.merge_size**2
        if tokens > limit:
            too_long.append((tokens, prompt))
    if too_long:
        tokens, prompt = max(too_long, key=lambda pair: pair[0])
        raise ValueError(
            f"{len(too_long)} of {len(prompts)} prompts are longer than max_prompt_tokens {limit}; the longest, "
            f"{prompt.question.text!r} on {prompt.image}, has {tokens}. Lower defender_round.max_prompt_pixels, raise "
            "max_prompt_tokens, or drop them"
        )


def choose_prompts(samples: Sequence[Sample], clean_share: float, seed: int) -> list[Prompt]:
    """Every edited scene once, and as many clean ones as make up `clean_share` of all; clean alone where it is 1.

    Raises ValueError where there is no edited scene although some are wanted.
    """
    edited = [Prompt(s.edited_image, s.question) for s in samples if s.edited_image is not None]
    clean = [Prompt(s.image, s.question) for s in samples]
    if not clean:
        raise ValueError("curated: the data set holds no samples; see the curation's funnel for what was dropped")
    if clean_share == 1:
        return clean
    if not edited:
        raise ValueError(
            "curated: no sample has an edited image, so there is nothing to train on; loosen curate's bounds, or set "
            "defender_round.clean_share to 1 to train on clean scenes"
        )
    count = round(len(edited) * clean_share / (1 - clean_share))
    order = np.random.default_rng([seed, 0]).permutation(np.resize(np.arange(len(clean)), count))
    return edited + [clean[int(i)] for i in order]


def grpo_dataset(prompts: Sequence[Prompt]) -> Dataset:
    """A row a prompt: its number, its picture's place, the conversational prompt, and what the rewards need."""
    rows = {
        "number": list(range(len(prompts))),
        "picture": [prompt.image for prompt in prompts],
        "prompt": [user_turn(prompt.question) for prompt in prompts],
        "question": [prompt.question.prompt for prompt in prompts],
        "answer": [prompt.question.answer for prompt in prompts],
        "options": [list(prompt.question.options) for prompt in prompts],
    }
    return Dataset.from_dict(rows)


_TRACKED = {
    "reward": "reward",
    "reward_std": "reward_std",
    "rewards/accuracy/mean": "accuracy",
    "rewards/format/mean": "boxed",
    "frac_reward_zero_std": "flat_groups",
    "useful_groups": "useful_groups",
    "generated_tokens": "generated_tokens",
    "entropy": "entropy",
    "kl": "kl",
    "clip_ratio/region_mean": "clip_ratio",
    "cispo_clip_ratio": "clip_ratio",
    "clip_ratio/low_mean": "clip_ratio_low",
    "clip_ratio/high_mean": "clip_ratio_high",
    "sampling/sampling_logp_difference/mean": "sampler_difference",
    "sampling/importance_sampling_ratio/mean": "sampler_ratio",
    "completions/mean_length": "completion_length",
    "completions/clipped_ratio": "cut_off",
    "loss": "loss",
    "grad_norm": "grad_norm",
    "step_time": "seconds_per_update",
}
"""TRL's names to this project's; entropy and clip shares are over the tokens that were trained on. `sampler_` is
how far vLLM's log-probabilities of its own answers lie from the trainer's, in nats, and the weight that corrects it."""


def figures(logs: Mapping[str, float]) -> dict[str, float]:
    """What is tracked of a trainer's log entry; of a user-defined reward term its mean, `reward_NAME`."""
    own = {
        f"reward_{key.split('/')[1].rpartition(':')[2]}": value
        for key, value in logs.items()
        if key.startswith("rewards/") and key.endswith("/mean") and key not in _TRACKED
    }
    known = {name: logs[key] for key, name in _TRACKED.items() if logs.get(key) is not None}
    return {name: float(value) for name, value in {**known, **own}.items() if value is not None}
