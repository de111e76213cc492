"""From a generation of P groups to the micro-batches of an update, and from a micro-batch to its prompts.

TRL shuffles single answers; here whole groups are shuffled, so that a micro-batch holds few prompts and each is encoded
once. An update sums over all its micro-batches, so that both give the same gradient. What a batch holds: tensors with a
row an answer (B), and `pixel_values` and `image_grid_thw` with one image a prompt.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

Batch = dict[str, Any]
OF_IMAGES = ("pixel_values", "image_grid_thw")


def cut(made: Batch, group: int, parts: int, skip_flat: bool = False) -> list[Batch]:
    """The micro-batches of a generation, `parts` of about equal size; each says in `prompt_of` (b,) whose answers it
    holds. A group is cut only where a micro-batch is smaller than it.

    Args:
        skip_flat: leave out groups without any advantage; a micro-batch keeps one answer at the least.
    """
    answers = len(made["completion_ids"])
    # One draw an answer, as TRL's: both then leave the random state alike. Groups stand in the order of their firsts.
    order = torch.randperm(answers).div(group, rounding_mode="floor")
    groups = list(dict.fromkeys(order.tolist()))
    if skip_flat:
        matters = made["advantages"].view(-1, group).ne(0).any(1).tolist()
        of_use = [g for g in groups if matters[g]]
        enough = -(-parts // group)  # every micro-batch needs an answer, if only one that adds nothing
        groups = of_use + [g for g in groups if not matters[g]][: max(0, enough - len(of_use))]
    rows = torch.tensor([g * group + i for g in groups for i in range(group)])
    whole = len(groups) >= parts and (answers // parts) % group == 0
    split = [part.flatten() for part in rows.view(-1, group).tensor_split(parts)] if whole else rows.tensor_split(parts)
    return [take(made, part, rows_group=group) for part in split]


def take(made: Batch, rows: Tensor, rows_group: int | None = None) -> Batch:
    """Some answers of a batch, with the images of their prompts alone, and no wider than the longest answer.

    Args:
        rows: (b,) the answers of a prompt next to each other.
        rows_group: G, for a whole generation, whose answers lie group by group; else the batch's own `prompt_of` tells.
    """
    device = made["completion_ids"].device
    rows = rows.to(device)
    prompt_of = rows // rows_group if rows_group else made["prompt_of"][rows]
    kept, numbers = torch.unique_consecutive(prompt_of, return_inverse=True)
    width = int(made["completion_mask"][rows].sum(1).max().clamp(min=1))
    longest = made["completion_ids"].shape[1]
    batch: Batch = {"prompt_of": numbers}
    for name, value in made.items():
        if name in OF_IMAGES or name == "prompt_of":
            continue
        if not isinstance(value, Tensor) or value.ndim == 0:
            batch[name] = [value[i] for i in rows.tolist()] if isinstance(value, list) else value
        else:
            batch[name] = value[rows]
            if value.ndim == 2 and name not in ("prompt_ids", "prompt_mask", "mm_token_type_ids"):
                batch[name] = batch[name][:, :width] if value.shape[1] == longest else batch[name]
    if "mm_token_type_ids" in made:
        batch["mm_token_type_ids"] = made["mm_token_type_ids"][rows, : made["prompt_ids"].shape[1] + width]
    if "pixel_values" in made:
        batch |= images_of(made, kept)
    return batch


def images_of(made: Mapping[str, Any], prompts: Tensor) -> dict[str, Tensor]:
    """Pixels and grids of some of a batch's prompts (one image a prompt)."""
    grids = made["image_grid_thw"]
    images = made["pixel_values"].split(grids.prod(-1).tolist())
    return {"pixel_values": torch.cat([images[i] for i in prompts.tolist()]), "image_grid_thw": grids[prompts]}


def gather_prompts(
    batch: Mapping[str, Any], prompt_of: Tensor, rows: Tensor, answer_tokens: int
) -> tuple[dict[str, Tensor], Tensor]:
    """The different prompts of some answers, as model inputs, and (b,) the number of every answer's among them.

    Args:
        prompt_of: (B,) for all answers of the batch.
        rows: (b,) the answers; those of a prompt next to each other.
        answer_tokens: T, the columns behind the prompt.
    """
    kept, numbers = torch.unique_consecutive(prompt_of[rows], return_inverse=True)
    counts = torch.bincount(numbers)
    firsts = rows[counts.cumsum(0) - counts]
    prompts = {name: batch[name][firsts, :-answer_tokens] for name in ("input_ids", "attention_mask")}
    prompts["mm_token_type_ids"] = batch["mm_token_type_ids"][firsts, :-answer_tokens]
    return {**prompts, **images_of(batch, kept)}, numbers


def prompts_at(inputs: Mapping[str, Tensor], rows: Tensor) -> dict[str, Tensor]:
    """Model inputs of some of U prompts."""
    of_tokens = {name: value[rows] for name, value in inputs.items() if name not in OF_IMAGES}
    return {**of_tokens, **images_of(inputs, rows)}
