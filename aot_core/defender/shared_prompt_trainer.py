"""TRL's GRPOTrainer with a group's prompt shared: encoded once in generation and once, with gradients, in training.

The same numbers as TRL's own (`tests/defender/test_against_stock.py` compares with the one that is installed), by
overriding as little as can be: how prompts are tokenised and answers are generated, how a generation is cut into
micro-batches (whole groups stay together), and the function that gives the answers' log-probabilities. With
`share_prompts=False` every override hands over to TRL.

Shapes: P prompts a generation, G answers a prompt, B = P * G answers; what the processor gives for images is kept once
a prompt.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor
from trl.models.utils import unwrap_model_for_generation
from trl.trainer.grpo_trainer import GRPOTrainer

from aot_core.defender.halving import Halving
from aot_core.defender.loading import Processor
from aot_core.defender.micro_batches import cut, gather_prompts, prompts_at
from aot_core.defender.sharing import answer_logprobs, can_share, generate_samples, prepare_sharing
from aot_core.defender.training import FiniteLoss


class SharedPromptTrainer(FiniteLoss, GRPOTrainer):
    """TRL's trainer, stopping at a loss that is not finite, and encoding a group's prompt once instead of G times."""

    stage = "defender_round"
    args: Any  # pyright: ignore[reportIncompatibleVariableOverride]
    num_generations: Any  # pyright: ignore[reportIncompatibleVariableOverride]
    model: Any  # pyright: ignore[reportIncompatibleVariableOverride]
    accelerator: Any  # pyright: ignore[reportIncompatibleVariableOverride]
    _tokenizer: Any  # pyright: ignore[reportIncompatibleVariableOverride]

    def __init__(self, *args: Any, share_prompts: bool = True, **kwargs: Any) -> None:
        """
        Args:
            share_prompts: False leaves everything to TRL. Where a model's attention cannot be shared, that is so too.
                Shared prompts have one picture each; another number is a ValueError in the first generation.
        """
        super().__init__(*args, **kwargs)
        self.generation_memory = Halving("prompts are asked")
        self.shares_prompts = share_prompts and can_share(self.model) and not self.tools
        if self.shares_prompts:
            prepare_sharing(self.model)
        self._prompt_of: Tensor | None = None
        self._generated_at: int | None = None

    @property
    def _sharing(self) -> bool:
        """Whether the step at hand is shared: TRL's evaluation loop is left alone."""
        return self.shares_prompts and self.model.training  # pyright: ignore[reportOptionalMemberAccess]

    @property
    def _old_logprobs_come_with_the_first_pass(self) -> bool:
        """The first pass computes the sampling policy's log-probabilities anyway: a pass of their own is spared.

        Not where they would differ (dropout), or where TRL corrects another engine's sampling by them.
        """
        return self._sharing and not self.use_vllm and not self.beta and not _has_dropout(self.model)

    @property
    def _flat_groups_add_nothing(self) -> bool:
        """Without advantage, divergence or entropy's bonus an answer's loss and gradient are 0: it need not be run."""
        return (
            not self.beta
            and not self._entropy_bonus_enabled
            and not self.averages_answers
            and self.accelerator.num_processes == 1
        )

    @property
    def averages_answers(self) -> bool:
        """Whether the loss is a mean over a micro-batch's answers: those without advantage then count, and parts of a
        micro-batch add up by their shares of its answers. The others divide by the generation's tokens."""
        return self.loss_type not in ("dapo", "cispo")

    # What a group has in common is prepared once.

    def _tokenize_prompts(self, prompts: list[Any]) -> tuple[Any, Any, Any]:
        if not self._sharing:
            return super()._tokenize_prompts(prompts)
        group = self.num_generations
        ids, images, fields = super()._tokenize_prompts(prompts[::group])
        counts = [len(of_prompt or ()) for of_prompt in images or [None] * len(ids)]
        place = next((i for i, count in enumerate(counts) if count != 1), None)
        if place is not None:
            raise ValueError(
                f"prompt {place} of a generation has {counts[place]} pictures, but a shared prompt has exactly one; "
                "train with share_prompts = false, which leaves generation and training to TRL"
            )
        return _each(ids, group), None if images is None else _each(images, group), fields

    def _generate_single_turn(
        self, prompt_ids: Any, images: Any, multimodal_fields: Any, num_generations: int, has_tool_images: bool = False
    ) -> Any:
        if self.use_vllm and self.vllm_mode == "colocate" and images is not None:
            processor: Any = self.processing_class
            prompt_ids = _with_one_token_an_image(prompt_ids, processor.image_token_id)
        if not self._sharing or self.use_vllm or self.use_transformers_continuous_batching:
            return super()._generate_single_turn(
                prompt_ids, images, multimodal_fields, num_generations, has_tool_images
            )
        inputs = _padded(self._tokenizer, prompt_ids[::num_generations], multimodal_fields)
        inputs = {key: value.to(self.accelerator.device) for key, value in inputs.items()}
        with (
            unwrap_model_for_generation(
                self.model_wrapped,
                self.accelerator,
                gather_deepspeed3_params=self.args.ds3_gather_for_generation,
                generation_kwargs=self.generation_kwargs,
                gradient_checkpointing_kwargs=self.args.gradient_checkpointing_kwargs,
            ) as model,
            self._dist.summon_full_params(self.model_wrapped, recurse=False),
        ):
            rows: list[list[int]] = []
            for part in torch.arange(len(inputs["input_ids"])).chunk(self.generation_memory.parts):
                tokens = generate_samples(
                    model, prompts_at(inputs, part), num_generations, generation_config=self.generation_config
                )
                rows += tokens.tolist()
        return [_up_to_end(row, self.eos_token_ids) for row in rows], None

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        if not self._sharing:
            return super()._generate_and_score_completions(inputs)
        with _once_a_group(self, self.num_generations):
            self._prompt_of = torch.arange(len(inputs), device=self.accelerator.device) // self.num_generations
            return super()._generate_and_score_completions(inputs)

    # Micro-batches keep groups together.

    def _prepare_inputs(self, generation_batch: Any) -> Any:
        if not self._sharing:
            return super()._prepare_inputs(generation_batch)
        steps = self.args.steps_per_generation
        due = self._step % (steps * self.num_iterations) == 0 and self._generated_at != self._step
        if due or self._buffered_inputs is None:
            self._generated_at = self._step  # a step that is repeated does not generate again
            made = self._generate_and_score_completions(generation_batch)
            self._buffered_inputs = cut(made, self.num_generations, steps, skip_flat=self._flat_groups_add_nothing)
        return self._buffered_inputs[self._step % steps]

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> Tensor:
        self._prompt_of = inputs.get("prompt_of")
        loss = super()._compute_loss(model, inputs)
        if self._old_logprobs_come_with_the_first_pass and "old_per_token_logps" not in inputs:
            inputs["old_per_token_logps"] = self._last_logprobs
        return loss

    def _get_per_token_logps_and_entropies(
        self,
        model: Any,
        input_ids: Tensor,
        attention_mask: Tensor,
        logits_to_keep: int,
        batch_size: int | None = None,
        **kwargs: Any,
    ) -> Any:
        if not self._sharing or kwargs.get("pixel_values") is None:
            return super()._get_per_token_logps_and_entropies(
                model, input_ids, attention_mask, logits_to_keep, batch_size, **kwargs
            )
        if not torch.is_grad_enabled() and self._old_logprobs_come_with_the_first_pass:
            return None, None, None
        prepare_sharing(self.accelerator.unwrap_model(model))
        prompt_of = self._prompt_of
        assert prompt_of is not None, "set before every loss and every generation"
        found, entropies = [], []
        for rows in torch.arange(len(input_ids), device=input_ids.device).split(batch_size or len(input_ids)):
            prompts, number_of = gather_prompts(
                {"input_ids": input_ids, "attention_mask": attention_mask, **kwargs}, prompt_of, rows, logits_to_keep
            )
            with self.accelerator.autocast():
                part, entropy = answer_logprobs(
                    model, input_ids[rows], attention_mask[rows], logits_to_keep, prompts, number_of
                )
            found.append(part)
            if entropy is not None:
                entropies.append(entropy)
        logprobs = torch.cat(found)
        self._last_logprobs = logprobs.detach()
        return logprobs, torch.cat(entropies) if entropies else None, None


def _has_dropout(model: Any) -> bool:
    return any(isinstance(module, torch.nn.Dropout) and module.p > 0 for module in model.modules())


def _each(items: list[Any], times: int) -> list[Any]:
    return [item for item in items for _ in range(times)]


def _with_one_token_an_image(prompt_ids: list[list[int]], image_token: int) -> list[list[int]]:
    """Every run of image tokens as a single one. vLLM puts an image's tokens in place of the first that it finds: of a
    prompt in which they stand already, as TRL 1.16 hands it over, it would see all but one of them twice."""
    return [
        [token for token, before in zip(ids, [None, *ids], strict=False) if not token == before == image_token]
        for ids in prompt_ids
    ]


def _up_to_end(tokens: list[int], ends: list[int]) -> list[int]:
    """The tokens up to and with the first that ends a turn."""
    return next((tokens[: i + 1] for i, token in enumerate(tokens) if token in ends), tokens)


def _padded(tokenizer: Any, prompt_ids: list[list[int]], fields: dict[str, Any]) -> dict[str, Tensor]:
    """Model inputs of U prompts, left-padded, from token lists and what the processor gave for the images."""
    padded = tokenizer.pad({"input_ids": prompt_ids}, padding_side="left", return_tensors="pt")
    types = tokenizer.pad({"input_ids": fields["mm_token_type_ids"]}, padding_side="left", return_tensors="pt")
    return {
        **padded,
        # Padding is text (0) to the position code, whatever token it is made of.
        "mm_token_type_ids": types["input_ids"] * padded["attention_mask"],
        "image_grid_thw": torch.as_tensor(np.asarray(fields["image_grid_thw"])),
        "pixel_values": torch.as_tensor(np.asarray(fields["pixel_values"])),
    }


class _OncePerGroup:
    """A processor that looks at a group's image and text once; what it gives for tokens is repeated for the answers."""

    def __init__(self, processor: Processor, group: int) -> None:
        self._processor, self._group = processor, group

    def __getattr__(self, name: str) -> Any:
        return getattr(self._processor, name)

    def __call__(self, images: list[Any], text: list[str], **kwargs: Any) -> dict[str, Any]:
        made = self._processor(images=images[:: self._group], text=text[:: self._group], **kwargs)
        for name in ("input_ids", "attention_mask", "mm_token_type_ids"):
            made[name] = made[name].repeat_interleave(self._group, 0)
        return made


@contextmanager
def _once_a_group(trainer: Any, group: int) -> Iterator[None]:
    processor: Callable[..., Any] = trainer.processing_class
    trainer.processing_class = _OncePerGroup(processor, group)
    try:
        yield
    finally:
        trainer.processing_class = processor
