"""Many lessons about one image in one sequence, each as if it stood alone.

The image's tokens are encoded once; every lesson is a branch that sees the image and itself but no other branch, at the
positions that it would have alone. A packed batch gives the same logits as single sequences, for less than half the
work.

Shapes: B images, L tokens of a packed sequence, A answer tokens in the batch, D candidates for an answer token.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from aot_core.defender.loading import Model, Processor
from aot_core.recipes.defender_lessons import DOUBT, Lesson


@dataclass(frozen=True)
class PackedBatch:
    """Tensors of a packed batch of images."""

    input_ids: torch.Tensor
    """(B, L)"""
    positions: torch.Tensor
    """(3, B, L), Qwen's temporal, row and column positions."""
    mask: torch.Tensor
    """(B, 1, L, L), added to the attention scores: 0 where a token (row) sees another (column), else very negative."""
    answer_at: torch.Tensor
    """(A, 2): image and token whose next token is an answer token."""
    targets: torch.Tensor
    """(A, D) token ids, the right one first; -1 where there are fewer than D candidates."""
    target_weights: torch.Tensor
    """(A, D) target probabilities; the rows sum to 1."""
    lesson: torch.Tensor
    """(A,) which lesson of the batch an answer token belongs to, counted from 0."""


def image_prefix(processor: Processor) -> str:
    """The text before the question: the chat template's, cut where the question begins."""
    mark = "QUESTION"
    content = [{"type": "image"}, {"type": "text", "text": mark}]
    text = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    return text.split(mark)[0]


def pack(processor: Processor, model: Model, lessons: Sequence[Sequence[Lesson]], grid: int) -> PackedBatch:
    """Pack the lessons of every image (outer sequence); `grid` is the side of the grid of visual tokens."""
    tokenizer = processor.tokenizer
    pad = processor.image_token
    prefix_text = image_prefix(processor).replace(pad, pad * grid * grid)
    prefix = tokenizer(prefix_text).input_ids
    prefix_positions, next_position = _prefix_positions(prefix, model.config.image_token_id, grid)
    rows = [_branches(tokenizer, of_image) for of_image in lessons]
    length = len(prefix) + max(sum(len(ids) for ids, *_ in row) for row in rows)

    batch = len(rows)
    input_ids = torch.full((batch, length), tokenizer.pad_token_id)
    positions = torch.zeros(3, batch, length, dtype=torch.long)
    branch = torch.zeros(batch, length, dtype=torch.long)  # 0 is the prefix
    answer_at, targets, weights, lesson_of = [], [], [], []
    lesson_number = 0
    for i, row in enumerate(rows):
        start = len(prefix)
        input_ids[i, :start] = torch.tensor(prefix)
        positions[:, i, :start] = prefix_positions
        for number, (ids, answer_start, candidates) in enumerate(row, 1):
            span = slice(start, start + len(ids))
            input_ids[i, span] = torch.tensor(ids)
            positions[:, i, span] = torch.arange(next_position, next_position + len(ids))
            branch[i, span] = number
            for offset in range(answer_start, len(ids)):
                answer_at.append((i, start + offset - 1))
                targets.append(candidates[offset - answer_start])
                weights.append(_doubtful(len(targets[-1])))
                lesson_of.append(lesson_number)
            lesson_number += 1
            start = span.stop
        branch[i, start:] = -1  # padding sees itself only
    width = max(len(t) for t in targets)
    same = branch[:, :, None] == branch[:, None, :]
    of_prefix = (branch == 0)[:, None, :] & (branch >= 0)[:, :, None]
    causal = torch.ones(length, length, dtype=torch.bool).tril()
    visible = (same | of_prefix) & causal
    return PackedBatch(
        input_ids=input_ids,
        positions=positions,
        # Additive, not boolean: the CPU's attention kernel would turn a boolean mask into this one in every layer.
        mask=torch.zeros(visible.shape).masked_fill(~visible, torch.finfo(torch.float32).min)[:, None],
        answer_at=torch.tensor(answer_at),
        targets=torch.tensor([t + [-1] * (width - len(t)) for t in targets]),
        target_weights=torch.tensor([w + [0.0] * (width - len(w)) for w in weights]),
        lesson=torch.tensor(lesson_of),
    )


def answer_loss(model: Model, packed: PackedBatch, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Cross-entropy of the answer tokens.

    Args:
        features: (B * grid * grid, hidden) visual tokens.

    Returns:
        The mean loss, and (A,) whether the likeliest token is the right one.
    """
    device = features.device
    input_ids = packed.input_ids.to(device)
    embeddings = model.get_input_embeddings()(input_ids)
    is_image = (input_ids == model.config.image_token_id)[..., None]
    embeddings = embeddings.masked_scatter(is_image, features.to(embeddings.dtype))
    hidden = model.model.language_model(
        inputs_embeds=embeddings,
        attention_mask=packed.mask.to(device),
        position_ids=packed.positions.to(device),
        use_cache=False,
    ).last_hidden_state
    at = packed.answer_at.to(device)
    logprobs = model.lm_head(hidden[at[:, 0], at[:, 1]]).log_softmax(-1)
    targets, weights = packed.targets.to(device), packed.target_weights.to(device)
    loss = -(logprobs.gather(1, targets.clamp(min=0)) * weights).sum(1).mean()
    return loss, logprobs.argmax(-1) == targets[:, 0]


def _prefix_positions(prefix: list[int], image_token: int, grid: int) -> tuple[torch.Tensor, int]:
    """(3, prefix) positions, and the position that follows: those of Qwen2.5-VL's `get_rope_index`."""
    first = prefix.index(image_token)
    square = torch.arange(grid)
    image = torch.stack(
        [torch.zeros(grid * grid, dtype=torch.long), square.repeat_interleave(grid), square.repeat(grid)]
    )
    after = len(prefix) - first - grid * grid
    text = torch.arange(first).expand(3, -1)
    tail = torch.arange(after).expand(3, -1) + first + grid
    return torch.cat([text, image + first, tail], 1), first + grid + after


def _branches(tokenizer, lessons: Sequence[Lesson]) -> list[tuple[list[int], int, list[list[int]]]]:
    """Of every lesson: token ids, where the answer begins, and the candidates for every answer token."""
    texts = []
    for lesson in lessons:
        opening = f"{lesson.prompt}<|im_end|>\n<|im_start|>assistant\n"
        texts += [opening, *(f"{a}<|im_end|>" for a in (lesson.answer, *lesson.others))]
    encoded = iter(tokenizer(texts).input_ids)
    branches = []
    for lesson in lessons:
        opening, answer = next(encoded), next(encoded)
        others = [next(encoded) for _ in lesson.others]
        assert all(len(other) == len(answer) for other in others), lesson
        candidates = [[token, *(other[k] for other in others if other[k] != token)] for k, token in enumerate(answer)]
        branches.append((opening + answer, len(opening), candidates))
    return branches


def _doubtful(candidates: int) -> list[float]:
    if candidates == 1:
        return [1.0]
    return [1.0 - DOUBT, *([DOUBT / (candidates - 1)] * (candidates - 1))]
