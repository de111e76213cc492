from pathlib import Path

import pytest
import torch

from aot_core.contracts.defender_round import DynamicSampling
from aot_core.defender.dynamic_sampling import Prospects, groups_of, join, useful_groups


def test_a_group_is_of_use_where_rewards_differ_within_bounds() -> None:
    rewards = torch.tensor([[0.0, 1.0], [1.0, 1.0], [0.0, 0.0], [0.8, 0.8], [0.995, 1.0], [0.0, 0.01]])
    assert useful_groups(rewards, None).tolist() == [True, False, False, False, True, True]
    assert useful_groups(rewards, DynamicSampling()).tolist() == [True, False, False, False, False, False]


def test_prompts_that_were_of_use_are_asked_before_unasked_ones_and_those_before_the_rest(tmp_path: Path) -> None:
    prospects = Prospects(6, seed=1)
    prospects.note([0, 1, 2], [False, True, True])
    chosen = prospects.choose(6, [4], 10, 1)
    assert [sorted(chosen[:2]), sorted(chosen[2:4]), chosen[4:]] == [[1, 2], [3, 5], [0]]
    assert prospects.choose(2, [4], 10, 1) == chosen[:2]
    prospects.write(tmp_path)
    again = Prospects(6, seed=1)
    again.read(tmp_path)
    assert again.choose(6, [4], 10, 1) == chosen, "a function of what was noted, the seed and the moment"


def generation(prompt: int, answer: int, groups: int, mark: int) -> dict:
    answers = groups * 2
    return {
        "prompt_ids": torch.full((answers, prompt), mark),
        "prompt_mask": torch.ones(answers, prompt, dtype=torch.long),
        "completion_ids": torch.full((answers, answer), mark),
        "completion_mask": torch.ones(answers, answer, dtype=torch.long),
        "mm_token_type_ids": torch.cat([torch.ones(answers, prompt), torch.zeros(answers, answer)], 1).long(),
        "advantages": torch.full((answers,), float(mark)),
        "num_items_in_batch": torch.tensor(5),
        "pixel_values": torch.full((groups * mark, 3), float(mark)),
        "image_grid_thw": torch.tensor([[1, 1, mark]] * groups),
        "num_images": [1] * answers,
    }


def test_groups_of_two_generations_are_joined_prompts_left_and_answers_right() -> None:
    first, second = groups_of(generation(4, 2, 2, 1), 2), groups_of(generation(3, 5, 1, 2), 2)
    made = join([first[0], second[0]], pad_token=9)
    assert made["prompt_ids"].tolist() == [[1] * 4] * 2 + [[9, 2, 2, 2]] * 2
    assert made["prompt_mask"].tolist() == [[1] * 4] * 2 + [[0, 1, 1, 1]] * 2
    assert made["completion_ids"].tolist() == [[1, 1, 9, 9, 9]] * 2 + [[2] * 5] * 2
    assert made["completion_mask"].tolist() == [[1, 1, 0, 0, 0]] * 2 + [[1] * 5] * 2
    assert made["mm_token_type_ids"].tolist() == [[1] * 4 + [0] * 5] * 2 + [[0, 1, 1, 1] + [0] * 5] * 2
    assert made["advantages"].tolist() == [1, 1, 2, 2]
    assert made["pixel_values"].tolist() == [[1] * 3] + [[2] * 3] * 2
    assert made["image_grid_thw"].tolist() == [[1, 1, 1], [1, 1, 2]]
    assert made["num_images"] == [1] * 4
    same = join(groups_of(generation(4, 2, 2, 1), 2), pad_token=9)
    for name, value in generation(4, 2, 2, 1).items():
        if isinstance(value, torch.Tensor) and value.ndim:
            torch.testing.assert_close(same[name], value)
    assert same["num_images"] == pytest.approx([1] * 4)
