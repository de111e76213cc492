from pathlib import Path

import pytest
from pydantic import ValidationError

from aot_core.contracts.defender_round import DefenderRoundConfig
from aot_core.data.dataset import read_samples
from aot_core.defender.grpo import choose_prompts, grpo_arguments, paper_reward


def test_prompts_hold_every_edited_scene_and_the_wanted_share_of_clean_ones(dataset: Path) -> None:
    samples = read_samples(dataset)  # 12
    prompts = choose_prompts(samples, 0.25, seed=0)
    edited = [prompt for prompt in prompts if prompt.image.endswith("-edited.png")]
    assert [prompt.image for prompt in edited] == [sample.edited_image for sample in samples]
    assert len(prompts) == 16  # 4 of 16 are clean
    assert len({prompt.image for prompt in prompts}) == 16
    assert len(choose_prompts(samples, 0.0, seed=0)) == 12
    assert [prompt.image for prompt in choose_prompts(samples, 1.0, seed=0)] == [sample.image for sample in samples]
    assert choose_prompts(samples, 0.25, seed=0) == prompts != choose_prompts(samples, 0.25, seed=1)


def test_a_round_without_edits_says_what_to_do(dataset: Path) -> None:
    samples = [sample.model_copy(update={"edited_image": None}) for sample in read_samples(dataset)]
    with pytest.raises(ValueError, match=r"no sample has an edited image.*clean_share to 1"):
        choose_prompts(samples, 0.25, seed=0)
    assert len(choose_prompts(samples, 1.0, seed=0)) == 12
    with pytest.raises(ValueError, match="holds no samples"):
        choose_prompts([], 1.0, seed=0)


def test_the_paper_s_reward_in_trl_s_form() -> None:
    logged: dict[str, float] = {}
    rewards = paper_reward(
        completions=[
            [{"role": "assistant", "content": text}] for text in (r"\boxed{A}", "boxed (a)", r"\boxed{B}", "")
        ],
        answer=["A", "A", "A", "A"],
        letters=["AB", "AB", "AB", "AB"],
        log_metric=logged.__setitem__,
        prompts=[],
    )
    assert rewards == pytest.approx([1.0, 0.8, 0.0, 0.0])
    assert logged == {"accuracy": 0.5, "boxed": 0.5}


def test_arguments_are_dapo_s(tmp_path: Path) -> None:
    config = DefenderRoundConfig(prompts=6, group_size=4, micro_batch=8, generations=5, iterations=3, seed=9)
    arguments = grpo_arguments(config, tmp_path, "cpu")
    assert (arguments.loss_type, arguments.epsilon, arguments.epsilon_high, arguments.beta) == ("dapo", 0.2, 0.28, 0)
    assert arguments.generation_batch_size == 24
    assert (arguments.per_device_train_batch_size, arguments.gradient_accumulation_steps) == (8, 3)
    assert (arguments.num_generations, arguments.num_iterations, arguments.max_steps) == (4, 3, 15)
    with pytest.raises(ValidationError, match="micro_batch 7 does not divide"):
        DefenderRoundConfig(prompts=6, group_size=4, micro_batch=7)
