import torch

from aot_core.defender.micro_batches import cut, gather_prompts


def generation(groups: int = 3, group: int = 4) -> dict:
    """Answer i has the id i + 1 as often as its number in the group, plus one; prompt p has p + 1 rows of pixels."""
    answers, longest = groups * group, group
    ids = (torch.arange(answers)[:, None] + 1).expand(-1, longest)
    lengths = torch.arange(answers) % group + 1
    grids = torch.tensor([[1, 1, p + 1] for p in range(groups)])
    return {
        "prompt_ids": torch.arange(groups).repeat_interleave(group)[:, None].expand(-1, 5),
        "prompt_mask": torch.ones(answers, 5, dtype=torch.long),
        "completion_ids": ids,
        "completion_mask": (torch.arange(longest) < lengths[:, None]).long(),
        "advantages": torch.arange(answers, dtype=torch.float),
        "num_items_in_batch": torch.tensor(30),
        "mm_token_type_ids": torch.zeros(answers, 5 + longest, dtype=torch.long),
        "pixel_values": torch.cat([torch.full((p + 1, 2), float(p)) for p in range(groups)]),
        "image_grid_thw": grids,
        "num_images": [1] * answers,
    }


def test_groups_stay_together_and_every_answer_is_there_once() -> None:
    torch.manual_seed(0)
    batches = cut(generation(), group=4, parts=3)
    assert sorted(torch.cat([batch["advantages"] for batch in batches]).tolist()) == list(range(12))
    for batch in batches:
        prompt = batch["prompt_ids"][0, 0].item()
        assert batch["prompt_of"].tolist() == [0] * 4
        assert batch["pixel_values"].tolist() == [[prompt, prompt]] * (prompt + 1)
        assert batch["num_items_in_batch"] == 30


def test_a_micro_batch_smaller_than_a_group_holds_its_prompt_and_is_no_wider_than_its_answers() -> None:
    torch.manual_seed(0)
    batches = cut(generation(), group=4, parts=6)
    assert [len(batch["advantages"]) for batch in batches] == [2] * 6
    assert [batch["completion_ids"].shape[1] for batch in batches] == [2, 4] * 3  # answers of 1 and 2, of 3 and 4
    assert [batch["mm_token_type_ids"].shape[1] for batch in batches] == [7, 9] * 3


def test_the_prompts_of_some_answers() -> None:
    made = generation()
    batch = {**made, "input_ids": torch.cat([made["prompt_ids"], made["completion_ids"]], 1)}
    batch["attention_mask"] = torch.ones_like(batch["input_ids"])
    prompts, numbers = gather_prompts(batch, torch.arange(12) // 4, torch.arange(6, 12), 4)
    assert numbers.tolist() == [0, 0, 1, 1, 1, 1]
    assert prompts["input_ids"].tolist() == [[1] * 5, [2] * 5]
    assert prompts["image_grid_thw"].tolist() == [[1, 1, 2], [1, 1, 3]]
    assert prompts["pixel_values"][:, 0].tolist() == [1, 1, 2, 2, 2]
