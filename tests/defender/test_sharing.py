"""A prompt encoded once gives the log-probabilities and gradients of TRL's own code, which encodes it G times."""

import copy
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model

from aot_core.contracts.defender_round import DefenderRoundConfig
from aot_core.data.dataset import read_samples
from aot_core.defender.grpo import (
    RoundTrainer,
    _up_to_end,
    choose_prompts,
    grpo_arguments,
    grpo_dataset,
    paper_reward,
)
from aot_core.defender.sharing import distinct_prompts


@pytest.mark.parametrize("lora", [False, True])
def test_shared_prompts_give_stock_numbers(
    lora: bool, untrained, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, processor = copy.deepcopy(untrained[0]), untrained[1]
    if lora:
        model = get_peft_model(model, LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False))
    config = DefenderRoundConfig(prompts=3, group_size=4, temperature=1.5, max_completion_tokens=5)
    trainer = RoundTrainer(
        model=model,
        reward_funcs=paper_reward,
        args=grpo_arguments(config, tmp_path, "cpu"),
        train_dataset=grpo_dataset(choose_prompts(read_samples(dataset), 0.0, 0), dataset),
        processing_class=processor,
    )
    trainer.current_gradient_accumulation_steps = 1
    model.train()
    torch.manual_seed(0)
    made = trainer._generate_and_score_completions([trainer.train_dataset[i // 4] for i in range(12)])
    shuffled = torch.randperm(12)  # the trainer shuffles answers before it trains on them
    ids = torch.cat([made["prompt_ids"], made["completion_ids"]], 1)[shuffled]
    mask = torch.cat([made["prompt_mask"], made["completion_mask"]], 1)[shuffled]
    pixels = made["pixel_values"].view(12, -1, made["pixel_values"].shape[1])[shuffled].flatten(0, 1)
    images = {"pixel_values": pixels, "image_grid_thw": made["image_grid_thw"], "num_images": [1] * 12}

    found = []
    for shares in (True, False):
        monkeypatch.setattr(RoundTrainer, "_shares_prompts", shares)
        model.zero_grad()
        logps, entropies, _ = trainer._get_per_token_logps_and_entropies(
            model,
            ids,
            mask,
            made["completion_ids"].shape[1],
            compute_entropy=True,
            mm_token_type_ids=made["mm_token_type_ids"][shuffled],
            **images,
        )
        answered = made["completion_mask"][shuffled]
        ((logps + entropies) * answered).sum().backward()
        gradient = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
        found.append((logps.detach() * answered, entropies.detach() * answered, gradient))
    for shared, stock in zip(*found, strict=True):
        torch.testing.assert_close(shared, stock, atol=1e-3, rtol=1e-3)


def test_prompts_differ_by_text_or_image() -> None:
    ids = torch.tensor([[1, 2], [1, 3], [1, 2], [1, 2]])
    images = [torch.zeros(2), torch.zeros(2), torch.zeros(2), torch.ones(2)]
    assert distinct_prompts(ids, images) == ([0, 1, 3], [0, 1, 0, 2])


def test_an_answer_ends_with_its_first_end_token() -> None:
    assert _up_to_end([5, 9, 7, 9], [9]) == [5, 9]
    assert _up_to_end([5, 7], [9]) == [5, 7]
