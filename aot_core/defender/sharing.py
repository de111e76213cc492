"""A group shares its prompt: image and question are encoded once, and their cache is given to every answer.

With G answers of a few tokens to a prompt of many, nearly all of a step's work is the prompt's. Stock code encodes it
for every answer; here it is encoded once for the group, in generation and, with gradients, in training. The numbers are
the same. Shapes: B answers, U different prompts, L prompt tokens (left-padded), T answer tokens (right-padded).
"""

from collections.abc import Mapping
from typing import Any

import torch
from peft import PeftModel
from transformers import DynamicCache

from aot_core.defender.loading import Model

PER_TOKEN = ("input_ids", "attention_mask", "mm_token_type_ids")
"""What a processor gives for every token; the rest it gives for every image."""


def core(model: Model) -> Model:
    """The model itself, without peft's wrapping; the adapter's layers stay inside it."""
    return model.get_base_model() if isinstance(model, PeftModel) else model


def prefill(model: Model, inputs: Mapping[str, torch.Tensor]) -> DynamicCache:
    """The cache of all prompt tokens but the last (U prompts): generation or scoring goes on from the last.

    Also sets `model.model.rope_deltas`: the offset between tokens and positions that the image's grid causes.
    """
    cache = DynamicCache(config=core(model).config)
    head = {key: value[:, :-1] for key, value in inputs.items() if key in PER_TOKEN}
    core(model).model(**{**inputs, **head}, past_key_values=cache, use_cache=True)
    return cache


@torch.no_grad()
def generate_samples(model: Model, inputs: Mapping[str, torch.Tensor], samples: int, **generation: Any) -> torch.Tensor:
    """(U * samples, T) new tokens, the samples of a prompt next to each other; `generation` goes to `generate`."""
    cache = prefill(model, inputs)
    cache.batch_repeat_interleave(samples)
    body = core(model).model
    body.rope_deltas = body.rope_deltas.repeat_interleave(samples, 0)
    prompt = {key: inputs[key].repeat_interleave(samples, 0) for key in PER_TOKEN}
    sequences = model.generate(**prompt, past_key_values=cache, **generation)
    return sequences[:, prompt["input_ids"].shape[1] :]


def distinct_prompts(prompt_ids: torch.Tensor, images: list[torch.Tensor]) -> tuple[list[int], list[int]]:
    """Which prompts (text and image) are the same: the first answer of each, and for every answer its prompt's number.

    Args:
        prompt_ids: (B, L).
        images: the pixels of every answer's image.
    """
    numbers: dict[tuple[bytes, bytes], int] = {}
    firsts, number_of = [], []
    for i, (ids, pixels) in enumerate(zip(prompt_ids.cpu(), images, strict=True)):
        key = ids.numpy().tobytes(), pixels.float().cpu().numpy().tobytes()
        if key not in numbers:
            numbers[key] = len(numbers)
            firsts.append(i)
        number_of.append(numbers[key])
    return firsts, number_of


def answer_logprobs(
    model: Model,
    input_ids: torch.Tensor,
    attention_mask: torch.Tensor,
    answer_tokens: int,
    prompts: Mapping[str, torch.Tensor],
    number_of: list[int],
    temperature: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probabilities and entropies (nats) of the answer tokens at a temperature, with gradients.

    Args:
        input_ids: (B, L + T) prompt and answer.
        answer_tokens: T.
        prompts: model inputs of the U different prompts.
        number_of: (B,) the prompt of every answer.

    Returns:
        (B, T) and (B, T).
    """
    cache = prefill(model, prompts)
    index = torch.tensor(number_of, device=input_ids.device)
    cache.batch_select_indices(index)
    body = core(model).model
    prompt_length = attention_mask[:, :-answer_tokens].sum(1, keepdim=True)
    steps = torch.arange(answer_tokens, device=input_ids.device)
    positions = prompt_length - 1 + body.rope_deltas[index] + steps
    hidden = body(
        input_ids=input_ids[:, -answer_tokens - 1 : -1],
        attention_mask=attention_mask[:, :-1],
        position_ids=positions.expand(3, -1, -1),
        past_key_values=cache,
        use_cache=True,
    ).last_hidden_state
    logprobs = (core(model).lm_head(hidden).float() / temperature).log_softmax(-1)
    entropies = -(logprobs.exp() * logprobs).sum(-1)
    return logprobs.gather(-1, input_ids[:, -answer_tokens:, None]).squeeze(-1), entropies
