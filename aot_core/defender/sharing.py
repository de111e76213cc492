"""A group shares its prompt: image and question are encoded once, and every answer to them reads what that left.

With G answers of a few tokens to a prompt of many, nearly all of a step's work is the prompt's. Stock code encodes it
for every answer; here it is encoded once for the group, in generation and, with gradients, in training. The numbers are
the same. Shapes: B answers, U different prompts, L prompt tokens (left-padded), K answers a prompt at most, T answer
tokens (right-padded).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from accelerate.utils import extract_model_from_parallel
from peft import PeftModel
from torch import Tensor
from transformers import DynamicCache

from aot_core.defender.loading import Model
from aot_core.defender.shared_attention import Branches, PromptCache, decoding, make_branches, share_attention

PER_TOKEN = ("input_ids", "attention_mask", "mm_token_type_ids")
"""What a processor gives for every token; the rest it gives for every image."""


def core(model: Model) -> Model:
    """The model itself, without what several processes or peft wrap it in; the adapter's layers stay inside it."""
    model = extract_model_from_parallel(model)
    return model.get_base_model() if isinstance(model, PeftModel) else model


def can_share(model: Model) -> bool:
    """Whether a model's positions and attention are of the kind that sharing knows: Qwen2-VL's and its successors'."""
    body = core(model).base_model
    if not hasattr(body, "get_rope_index") or not hasattr(body, "language_model"):
        return False
    return set(body.language_model.config.layer_types) == {"full_attention"}


def prepare_sharing(model: Model) -> None:
    """Prepare a model to be called with `shared_prompt`. Idempotent; nothing of it is saved."""
    body = core(model).base_model
    share_attention(body.language_model)
    if not getattr(body, "_returns_branches", False):
        body.register_forward_hook(_only_branches, with_kwargs=True)
        body._returns_branches = True


def _only_branches(_module: Any, _args: Any, kwargs: dict[str, Any], output: Any) -> Any:
    """Of a batch with branches the body gives their hidden states alone: no prompt token is ever scored."""
    layout: Branches | None = kwargs.get("shared_prompt")
    if layout is not None:
        output.last_hidden_state = output.last_hidden_state[:, layout.prompt :]
    return output


@dataclass(frozen=True)
class Prompts:
    """U prompts without their last token, with which every answer's branch begins; right-padded."""

    ids: Tensor
    """(U, L')."""
    lengths: Tensor
    """(U,) real tokens."""
    positions: Tensor
    """(3, U, L'): time, height and width (Qwen2-VL, arXiv 2409.12191, section 2.1)."""
    next_position: Tensor
    """(U,): where the last token stands."""


def lay_out(model: Model, inputs: Mapping[str, Tensor]) -> Prompts:
    """Left-padded prompts, as processors give them, as `Prompts`."""
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    positions, deltas = core(model).base_model.get_rope_index(
        ids, inputs["mm_token_type_ids"], image_grid_thw=inputs["image_grid_thw"], attention_mask=mask
    )
    lengths = mask.sum(1) - 1
    width = int(lengths.max())
    steps = torch.arange(width, device=ids.device)
    # Padding repeats the first real token: any will do, for nothing reads it.
    start = ids.shape[1] - 1 - lengths
    source = torch.where(steps < lengths[:, None], start[:, None] + steps, start[:, None])
    return Prompts(
        ids=ids.gather(1, source),
        lengths=lengths,
        positions=positions.gather(2, source.expand(3, -1, -1)),
        next_position=lengths + deltas[:, 0],
    )


def pixels_of(inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key: inputs[key] for key in ("pixel_values", "image_grid_thw")}


@torch.no_grad()
def generate_samples(model: Model, inputs: Mapping[str, Tensor], samples: int, **generation: Any) -> Tensor:
    """(U * samples, T) new tokens, the samples of a prompt next to each other; `generation` goes to `generate`."""
    if not can_share(model):
        sequences = model.generate(
            **{key: value.repeat_interleave(samples, 0) for key, value in inputs.items() if key in PER_TOKEN},
            **repeated_pixels(inputs, samples),
            **generation,
        )
        return sequences[:, inputs["input_ids"].shape[1] :]
    prepare_sharing(model)
    body, prompts = core(model).base_model, lay_out(model, inputs)
    cache = DynamicCache(config=body.language_model.config)
    body(
        input_ids=prompts.ids,
        attention_mask={"full_attention": None},
        position_ids=prompts.positions,
        past_key_values=cache,
        use_cache=True,
        **pixels_of(inputs),
    )
    steps = torch.arange(prompts.ids.shape[1], device=prompts.ids.device)
    visible = steps < prompts.lengths[:, None]
    shared = PromptCache(cache, visible, samples, body.language_model.config)
    # Generation counts positions from the mask; the image's share of them is told by `rope_deltas`.
    body.rope_deltas = (prompts.next_position - prompts.lengths)[:, None].repeat_interleave(samples, 0)
    ids = torch.cat([prompts.ids, inputs["input_ids"][:, -1:]], 1).repeat_interleave(samples, 0)
    mask = torch.cat([visible, visible.new_ones(len(visible), 1)], 1).long().repeat_interleave(samples, 0)
    with decoding(shared):
        sequences = model.generate(input_ids=ids, attention_mask=mask, past_key_values=shared, **generation)
    return sequences[:, ids.shape[1] :]


def repeated_pixels(inputs: Mapping[str, Tensor], samples: int) -> dict[str, Tensor]:
    """Pixels and grids of U images, each `samples` times."""
    grids = inputs["image_grid_thw"]
    images = inputs["pixel_values"].split(grids.prod(-1).tolist())
    return {
        "pixel_values": torch.cat([image for image in images for _ in range(samples)]),
        "image_grid_thw": grids.repeat_interleave(samples, 0),
    }


def answer_logprobs(
    model: Model,
    input_ids: Tensor,
    attention_mask: Tensor,
    answer_tokens: int,
    prompts: Mapping[str, Tensor],
    number_of: Tensor,
) -> tuple[Tensor, Tensor | None]:
    """Log-probabilities and entropies (nats) of the answer tokens, with gradients, 0 behind an answer's end.

    The model must be one that TRL has given its fused head to (`trl.trainer.utils.add_fused_lm_head`), and it is called
    once, as a whole: wrappers that gather its weights or reduce its gradients see nothing unusual.

    Args:
        input_ids: (B, L + T) prompt and answer.
        answer_tokens: T.
        prompts: model inputs of the U different prompts.
        number_of: (B,) the prompt of every answer; the answers to a prompt stand next to each other.

    Returns:
        (B, T) and (B, T); no entropies where the head computes none, as a reference model's.
    """
    laid = lay_out(model, prompts)
    device, total = input_ids.device, len(laid.ids)
    counts = torch.bincount(number_of, minlength=total)
    most = int(counts.max())
    # (B,) the slot of every answer among its prompt's branches. Prompts with fewer answers keep idle slots.
    slot = number_of * most + torch.arange(len(number_of), device=device) - (counts.cumsum(0) - counts)[number_of]
    branch_ids = laid.ids.new_zeros(total * most, answer_tokens)
    branch_ids[slot] = input_ids[:, -answer_tokens - 1 : -1]
    labels = branch_ids.new_full((total * most, answer_tokens), -100)
    answers, answered = input_ids[:, -answer_tokens:], attention_mask[:, -answer_tokens:].bool()
    labels[slot] = answers.masked_fill(~answered, -100)
    steps = torch.arange(answer_tokens, device=device).repeat(most)
    positions = (laid.next_position[:, None] + steps).expand(3, -1, -1)
    outputs = model(
        input_ids=torch.cat([laid.ids, branch_ids.view(total, -1)], 1),
        attention_mask={"full_attention": None},
        position_ids=torch.cat([laid.positions, positions], 2),
        shared_prompt=make_branches(laid.lengths, laid.ids.shape[1], most, answer_tokens),
        shift_labels=labels.view(total, -1),
        fused_lm_head=True,
        **pixels_of(prompts),
    )
    entropy = outputs.entropy
    return (
        outputs.log_probs.view(-1, answer_tokens)[slot],
        None if entropy is None else entropy.view(-1, answer_tokens)[slot],
    )
