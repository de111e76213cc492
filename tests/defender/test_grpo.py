from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image
from pydantic import ValidationError

from aot_core.contracts.defender_round import DefenderRoundConfig, Vllm
from aot_core.contracts.warm_start_defender import WarmStartDefenderConfig
from aot_core.data.dataset import read_samples
from aot_core.defender.answering import chat_prompt
from aot_core.defender.grpo import check_prompts, choose_prompts, grpo_arguments, schedule
from aot_core.defender.shared_prompt_trainer import _with_one_token_an_image
from aot_core.worlds.images import DataError


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


def test_every_prompt_is_asked_once_before_any_is_asked_again() -> None:
    order = schedule(5, 13, seed=3)
    assert sorted(order[:5]) == sorted(order[5:10]) == list(range(5)) and len(order) == 13
    assert order[:5] != order[5:10]
    assert order == schedule(5, 13, seed=3) != schedule(5, 13, seed=4)
    assert schedule(5, 8, seed=3) == order[:8], "a longer round begins like a shorter one"


def test_a_prompt_over_the_limit_is_refused_before_training(dataset: Path, untrained) -> None:
    prompts = choose_prompts(read_samples(dataset), 0.0, seed=0)
    processor = untrained[1]
    inputs = [
        processor(
            images=[Image.open(dataset / prompt.image)],
            text=[chat_prompt(processor, prompt.question.prompt)],
            return_tensors="pt",
        )
        for prompt in prompts
    ]
    longest = max(one.input_ids.shape[1] for one in inputs)
    check_prompts(prompts, dataset, processor, longest)
    with pytest.raises(ValueError, match=rf"prompts are longer than max_prompt_tokens {longest - 1}; .* has {longest}"):
        check_prompts(prompts, dataset, processor, longest - 1)


def test_an_image_over_the_pixel_limit_is_refused_before_training(dataset: Path, untrained, tmp_path: Path) -> None:
    Image.new("1", (8000, 5001)).save(tmp_path / "large.png")
    prompt = replace(choose_prompts(read_samples(dataset), 0.0, seed=0)[0], image="large.png")
    with pytest.raises(DataError, match=r"large.png.*8000x5001 pixels are more than the limit of 40000000"):
        check_prompts([prompt], tmp_path, untrained[1], None)


def test_arguments_are_dapo_s(tmp_path: Path) -> None:
    config = DefenderRoundConfig(prompts=6, group_size=4, micro_batch=8, generations=5, iterations=3, seed=9)
    arguments = grpo_arguments(config, tmp_path, "cpu")
    assert (arguments.loss_type, arguments.epsilon, arguments.epsilon_high, arguments.beta) == ("dapo", 0.2, 0.28, 0)
    assert arguments.generation_batch_size == 24
    assert (arguments.per_device_train_batch_size, arguments.gradient_accumulation_steps) == (8, 3)
    assert (arguments.num_generations, arguments.num_iterations, arguments.max_steps) == (4, 3, 15)
    assert arguments.lr_scheduler_type == "constant_with_warmup"
    falling = grpo_arguments(config.model_copy(update={"schedule": "linear"}), tmp_path, "cpu")
    assert falling.lr_scheduler_type == "linear" and falling.warmup_steps == config.warmup_ratio
    assert (arguments.save_strategy, arguments.save_steps) == ("steps", 30), "between generations"
    assert arguments.reward_weights == [0.8, 0.2]
    with pytest.raises(ValidationError, match="micro_batch 7 does not divide"):
        DefenderRoundConfig(prompts=6, group_size=4, micro_batch=7)
    with pytest.raises(ValueError, match=r"defender_round.vllm: the package vllm is not installed"):
        grpo_arguments(DefenderRoundConfig(vllm=Vllm()), tmp_path, "cpu")


def test_vllm_is_handed_one_token_an_image() -> None:
    image = 7
    prompts = [[1, image, image, image, 2, 3], [image, image, 1, 1, image], [1, 2]]
    assert _with_one_token_an_image(prompts, image) == [[1, image, 2, 3], [image, 1, 1, image], [1, 2]]


def test_processes_share_a_generation_out_and_the_updates_stay(tmp_path: Path) -> None:
    config = DefenderRoundConfig(prompts=6, group_size=4, micro_batch=4, generations=5, iterations=3, processes=2)
    arguments = grpo_arguments(config, tmp_path, "cpu")
    assert (arguments.per_device_train_batch_size, arguments.gradient_accumulation_steps) == (4, 3), "12 answers each"
    assert arguments.max_steps == 15
    for wrong, says in (
        ({"processes": 4}, "processes 4 does not divide prompts 6"),
        ({"processes": 2, "micro_batch": 8}, "micro_batch 8 does not divide prompts . group_size = 12 of a process"),
        ({"reference_on_cpu": True}, "there is no reference model to move without beta"),
    ):
        with pytest.raises(ValidationError, match=says):
            DefenderRoundConfig.model_validate({"prompts": 6, "group_size": 4} | wrong)
    with pytest.raises(ValidationError, match="processes 8 does not divide gradient_accumulation 4"):
        WarmStartDefenderConfig(processes=8, gradient_accumulation=4)
