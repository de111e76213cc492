r"""The Defender's round: TRL's GRPOTrainer as DAPO (arXiv 2503.14476) on curated edits, with the paper's reward.

Samples and their folder go in, the trained model comes out; figures are tracked live. DAPO here is: group-normalised
advantages, the ratio clipped to 1 - epsilon_low .. 1 + epsilon_high, no KL, the loss averaged over the tokens of all
answers. A group whose answers all earn the same has no advantage and teaches nothing: their share is tracked as
`defender/flat_groups`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset, Image
from transformers import PrinterCallback
from trl.trainer.grpo_config import GRPOConfig
from trl.trainer.grpo_trainer import GRPOTrainer

from aot_core.contracts.defender_round import DefenderRoundConfig, DefenderRoundOutputs
from aot_core.contracts.scene import LETTERS, Question, Sample
from aot_core.data.answers import extract_letter, is_exactly_boxed
from aot_core.data.images import safe_path
from aot_core.defender.loading import Model, Processor
from aot_core.defender.rewards import defender_reward
from aot_core.defender.sharing import answer_logprobs, distinct_prompts, generate_samples
from aot_core.defender.training import FiniteLoss, TrackerCallback, common_arguments, mean_of
from aot_core.defender.warm_start import user_turn
from aot_core.tracking.protocol import Tracker

STAGE = "defender_round"


class RoundTrainer(FiniteLoss, GRPOTrainer):
    """TRL's trainer, stopping at a loss that is not finite, and encoding a group's prompt once instead of G times.

    The second is a matter of speed alone and gives the same numbers. It is left out, for TRL's own code, where
    activations are checkpointed (no cache then) or several processes train (gradients travel through a wrapper).
    """

    stage = STAGE

    @property
    def _shares_prompts(self) -> bool:
        return not self.args.gradient_checkpointing and self.accelerator.num_processes == 1

    def _generate_single_turn(
        self, prompt_ids: Any, images: Any, multimodal_fields: Any, num_generations: int, has_tool_images: bool = False
    ) -> Any:
        model: Model = self.model
        if not self._shares_prompts or not model.training:
            return super()._generate_single_turn(
                prompt_ids, images, multimodal_fields, num_generations, has_tool_images
            )
        # The sampler lays the G copies of a prompt next to each other: the first of each stands for all.
        first = slice(None, None, num_generations)
        processor: Processor = self.processing_class
        pad = processor.tokenizer.pad
        padded = pad({"input_ids": prompt_ids[first]}, padding_side="left", return_tensors="pt")
        types = pad({"input_ids": multimodal_fields["mm_token_type_ids"][first]}, padding_side="left")["input_ids"]
        grids, pixels = (torch.as_tensor(np.asarray(multimodal_fields[k])) for k in ("image_grid_thw", "pixel_values"))
        pixels = pixels.split(grids.prod(-1).tolist())
        inputs = {
            **padded,
            # Padding is text (0) to the position code, whatever token it is made of.
            "mm_token_type_ids": torch.tensor(types) * padded["attention_mask"],
            "image_grid_thw": grids[first],
            "pixel_values": torch.cat(pixels[first]),
        }
        inputs = {key: value.to(self.accelerator.device) for key, value in inputs.items()}
        model = self.accelerator.unwrap_model(self.model_wrapped)
        model.eval()
        tokens = generate_samples(model, inputs, num_generations, generation_config=self.generation_config)
        model.train()
        return [_up_to_end(row, self.eos_token_ids) for row in tokens.tolist()], None

    def _get_per_token_logps_and_entropies(
        self, model: Any, input_ids: Any, attention_mask: Any, logits_to_keep: int, *args: Any, **kwargs: Any
    ) -> Any:
        pixels, grids = kwargs.get("pixel_values"), kwargs.get("image_grid_thw")
        types = kwargs.get("mm_token_type_ids")
        if not self._shares_prompts or pixels is None or grids is None or types is None:
            return super()._get_per_token_logps_and_entropies(
                model, input_ids, attention_mask, logits_to_keep, *args, **kwargs
            )
        images = list(pixels.split(grids.prod(-1).tolist()))
        firsts, number_of = distinct_prompts(input_ids[:, :-logits_to_keep], images)
        prompts = {
            "input_ids": input_ids[firsts, :-logits_to_keep],
            "attention_mask": attention_mask[firsts, :-logits_to_keep],
            "mm_token_type_ids": types[firsts, :-logits_to_keep],
            "image_grid_thw": grids[firsts],
            "pixel_values": torch.cat([images[i] for i in firsts]),
        }
        with self.accelerator.autocast():
            logps, entropies = answer_logprobs(
                self.accelerator.unwrap_model(model),
                input_ids,
                attention_mask,
                logits_to_keep,
                prompts,
                number_of,
                self.temperature,
            )
        return logps, entropies, None


def _up_to_end(tokens: list[int], ends: list[int]) -> list[int]:
    """The tokens up to and with the first that ends a turn."""
    return next((tokens[: i + 1] for i, token in enumerate(tokens) if token in ends), tokens)


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
    scratch: Path,
    device: str,
    tracker: Tracker,
) -> DefenderRoundOutputs:
    """Train `model` in place. Raises ValueError where there is nothing to train on, NonFiniteLossError."""
    prompts = choose_prompts(samples, config.clean_share, config.seed)
    if config.max_prompt_pixels is not None:
        size = dict(processor.image_processor.size)
        processor.image_processor.size = {**size, "longest_edge": config.max_prompt_pixels}
    if config.freeze_vision:
        for name, parameter in model.named_parameters():
            if ".visual." in f".{name}":
                parameter.requires_grad_(False)
    record = TrackerCallback(STAGE, tracker, _figures)
    trainer = RoundTrainer(
        model=model,
        reward_funcs=paper_reward,
        args=grpo_arguments(config, scratch, device),
        train_dataset=grpo_dataset(prompts, folder),
        processing_class=processor,
        callbacks=[record],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    return DefenderRoundOutputs(
        prompts=len(prompts),
        updates=trainer.state.global_step,
        first_reward=mean_of(record.history, "reward", first=0.1),
        last_reward=mean_of(record.history, "reward", last=0.1),
        flat_groups=mean_of(record.history, "flat_groups"),
        entropy=mean_of(record.history, "entropy", last=0.1),
        clip_ratio=mean_of(record.history, "clip_ratio"),
    )


def grpo_arguments(config: DefenderRoundConfig, scratch: Path, device: str) -> GRPOConfig:
    """The round's config in TRL's words: one generation of P * G answers, `iterations` updates on them."""
    answers = config.prompts * config.group_size
    micro_batch = config.micro_batch or answers
    return GRPOConfig(
        **common_arguments(scratch, config.model, device, config.seed),
        loss_type="dapo",
        epsilon=config.epsilon_low,
        epsilon_high=config.epsilon_high,
        beta=config.beta,
        scale_rewards="group",
        num_generations=config.group_size,
        num_iterations=config.iterations,
        per_device_train_batch_size=micro_batch,
        gradient_accumulation_steps=answers // micro_batch,
        steps_per_generation=answers // micro_batch,
        max_steps=config.generations * config.iterations,
        temperature=config.temperature,
        max_completion_length=config.max_completion_tokens,
        learning_rate=config.learning_rate,
        lr_scheduler_type="constant_with_warmup",
        warmup_steps=config.warmup_ratio,
        max_grad_norm=config.max_grad_norm,
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


def grpo_dataset(prompts: Sequence[Prompt], folder: Path) -> Dataset:
    """Rows of image and conversational prompt, and what the reward needs: `answer` and `letters`."""
    rows = {
        "image": [str(safe_path(folder, prompt.image)) for prompt in prompts],
        "prompt": [user_turn(prompt.question) for prompt in prompts],
        "answer": [prompt.question.answer for prompt in prompts],
        "letters": [LETTERS[: len(prompt.question.options)] for prompt in prompts],
    }
    return Dataset.from_dict(rows).cast_column("image", Image(mode="RGB"))


def paper_reward(
    completions: list[list[dict[str, str]]], answer: list[str], letters: list[str], log_metric: Any = None, **_: Any
) -> list[float | None]:
    """`rewards.defender_reward` in TRL's form; also logs the shares that are right and that are exactly boxed."""
    texts = [completion[-1]["content"] for completion in completions]
    if log_metric is not None:
        rows = list(zip(texts, answer, letters, strict=True))
        log_metric("accuracy", float(np.mean([extract_letter(text, on) == right for text, right, on in rows])))
        boxed = [any(is_exactly_boxed(text, letter) for letter in on) for text, _, on in rows]
        log_metric("boxed", float(np.mean(boxed)))
    return [defender_reward(text, right, on) for text, right, on in zip(texts, answer, letters, strict=True)]


_TRACKED = {
    "reward": "reward",
    "reward_std": "reward_std",
    "accuracy": "accuracy",
    "boxed": "boxed",
    "frac_reward_zero_std": "flat_groups",
    "entropy": "entropy",
    "kl": "kl",
    "clip_ratio/region_mean": "clip_ratio",
    "clip_ratio/low_mean": "clip_ratio_low",
    "clip_ratio/high_mean": "clip_ratio_high",
    "completions/mean_length": "completion_length",
    "loss": "loss",
    "grad_norm": "grad_norm",
    "step_time": "seconds_per_update",
}
"""TRL's names to this project's."""


def _figures(logs: dict[str, float]) -> dict[str, float]:
    return {name: float(logs[key]) for key, name in _TRACKED.items() if logs.get(key) is not None}
