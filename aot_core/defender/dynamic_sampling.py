"""Dynamic sampling (DAPO, arXiv 2503.14476, section 3.2): which groups are useful, which prompts to ask next, and how
to join the batches.

A group whose answers all earn the same has no advantage and teaches nothing. Up to a bound, other prompts are asked in
its place; only as many as are missing. Shapes: _P groups, _G answers a group.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from aot_core.contracts.defender_round import DynamicSampling
from aot_core.defender.micro_batches import OF_IMAGES, Batch
from aot_core.rl.advantages import flat_groups

FILE = "sampling.json"
OF_PROMPTS = ("prompt_ids", "prompt_mask")


def useful_groups(rewards_PG: Tensor, settings: DynamicSampling | None) -> Tensor:
    """(P,) of bool: groups whose rewards differ and whose mean lies between the bounds."""
    differs = ~flat_groups(rewards_PG)
    if settings is None:
        return differs
    mean = rewards_PG.mean(1)
    return differs & (mean > settings.low) & (mean < settings.high)


class Prospects:
    """Which prompts are likely to be useful: those that were when last asked, then unasked ones, then the rest."""

    def __init__(self, prompts: int, seed: int) -> None:
        self._prompts, self._seed = prompts, seed
        self._last: dict[int, bool] = {}

    def note(self, prompts: Sequence[int], useful: Sequence[bool]) -> None:
        self._last.update(zip(prompts, useful, strict=True))

    def choose(self, count: int, taken: Sequence[int], *moment: int) -> list[int]:
        """`count` prompts that are not in `taken`, or all that are left. The same `moment` gives the same order."""
        order = np.random.default_rng([self._seed, *moment]).permutation(self._prompts).tolist()
        rank = {True: 0, None: 1, False: 2}
        free = [prompt for prompt in order if prompt not in set(taken)]
        return sorted(free, key=lambda prompt: rank[self._last.get(prompt)])[:count]

    def write(self, folder: Path) -> None:
        (folder / FILE).write_text(json.dumps({str(prompt): useful for prompt, useful in self._last.items()}))

    def read(self, folder: Path) -> None:
        self._last = {int(prompt): useful for prompt, useful in json.loads((folder / FILE).read_text()).items()}


def groups_of(made: Batch, group: int) -> list[Batch]:
    """A generation's groups, each a batch of its own."""
    answers = len(made["completion_ids"])
    images = len(made["image_grid_thw"]) * group // answers if "image_grid_thw" in made else 0
    found = []
    for start in range(0, answers, group):
        one: Batch = {}
        for name, value in made.items():
            if name in OF_IMAGES or (isinstance(value, Tensor) and value.ndim == 0):
                continue
            one[name] = value[start : start + group]
        if images:
            first = start // group * images
            grids = made["image_grid_thw"]
            pixels = made["pixel_values"].split(grids.prod(-1).tolist())
            one["image_grid_thw"] = grids[first : first + images]
            one["pixel_values"] = torch.cat(pixels[first : first + images])
        found.append(one)
    return found


def join(groups: Sequence[Batch], pad_token: int) -> Batch:
    """Groups of several generations as one: prompts padded on the left, answers on the right, images in a row."""
    prompt = max(one["prompt_ids"].shape[1] for one in groups)
    answer = max(one["completion_ids"].shape[1] for one in groups)

    def widened(one: Batch, name: str) -> Any:
        value = one[name]
        if not isinstance(value, Tensor) or value.ndim != 2 or name in OF_IMAGES:
            return value
        before, behind = prompt - one["prompt_ids"].shape[1], answer - one["completion_ids"].shape[1]
        filling = pad_token if name in ("prompt_ids", "completion_ids") else 0
        if name in OF_PROMPTS:
            return pad(value, (before, 0), value=filling)
        if name == "mm_token_type_ids":
            return pad(value, (before, behind))
        return pad(value, (0, behind), value=filling) if value.shape[1] == one["completion_ids"].shape[1] else value

    joined: Batch = {}
    for name in groups[0]:
        parts = [widened(one, name) for one in groups]
        joined[name] = torch.cat(parts) if isinstance(parts[0], Tensor) else [item for part in parts for item in part]
    return joined
