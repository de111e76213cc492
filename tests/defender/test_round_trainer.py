"""A round's trainer on a tiny random model: what is replaced, logged and survived."""

import copy
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch

from aot_core.contracts.defender_round import DefenderRoundConfig, DynamicSampling
from aot_core.data.dataset import read_samples
from aot_core.defender.grpo import choose_prompts, grpo_arguments, grpo_dataset, schedule
from aot_core.defender.rewards import Answered
from aot_core.defender.round_trainer import RoundTrainer, last_complete_checkpoint

SMALL: dict[str, Any] = {
    "prompts": 4,
    "group_size": 4,
    "generations": 2,
    "iterations": 2,
    "max_completion_tokens": 4,
    "learning_rate": 1e-3,
    "warmup_ratio": 0.0,
    "checkpoint_every": 0,
    "dynamic_sampling": None,
}
Score = Callable[[Sequence[Answered]], list[float]]


def by_letters(batch: Sequence[Answered]) -> list[float]:
    """Differs within every group."""
    return [float(sum(map(ord, answered.completion)) % 7) / 7 for answered in batch]


def some_flat(batch: Sequence[Answered]) -> list[float]:
    """Groups of every second length of question are flat."""
    return [
        0.0 if len(answered.prompt) % 2 else score for answered, score in zip(batch, by_letters(batch), strict=True)
    ]


@pytest.fixture
def trainer_of(untrained: Any, dataset: Path, tmp_path: Path) -> Callable[..., RoundTrainer]:
    def build(score: Score = by_letters, name: str = "trainer", **changes: Any) -> RoundTrainer:
        config = DefenderRoundConfig(**{**SMALL, **changes})
        model, processor = copy.deepcopy(untrained)
        prompts = grpo_dataset(choose_prompts(read_samples(dataset), 0.0, 0))
        arguments = grpo_arguments(config.model_copy(update={"rewards": config.rewards[:1]}), tmp_path / name, "cpu")
        arguments.optim = "sgd"  # a step in proportion to the gradient, so that weights compare like gradients
        order = schedule(len(prompts), config.generations * config.prompts, config.seed)
        trainer = RoundTrainer(
            model=model,
            folder=dataset,
            prompts=prompts,
            terms={"mine": score},
            weights={"mine": 1.0},
            dynamic_sampling=config.dynamic_sampling,
            args=arguments,
            train_dataset=prompts.select(order),
            processing_class=processor,
        )
        trainer.reward_weights = torch.ones(1)
        return trainer

    return build


def weights_of(trainer: RoundTrainer) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in trainer.model.named_parameters()}


def test_flat_groups_are_replaced_up_to_the_bound_and_everything_is_logged(
    trainer_of: Callable[..., RoundTrainer], tmp_path: Path
) -> None:
    stages = {}
    for refills in (0, 2):
        trainer = trainer_of(some_flat, f"r{refills}", dynamic_sampling=DynamicSampling(refills=refills))
        trainer.train()
        rows = pq.read_table(trainer.reward_log.write(tmp_path / f"r{refills}")).to_pylist()
        share = [entry["useful_groups"] for entry in trainer.state.log_history if "useful_groups" in entry]
        stages[refills] = rows, sum(share) / len(share), trainer
    (plain, plain_share, _), (rows, share, trainer) = stages[0], stages[2]
    assert share > plain_share, "more of what is trained on is of use"
    assert {row["refill"] for row in plain} == {0} and {row["refill"] for row in rows} >= {0, 1}
    assert len(plain) == 2 * 16 and len(rows) % 4 == 0
    first = [row for row in rows if row["generation"] == 0]
    missing = sum(not row["useful"] for row in first if row["refill"] == 0) // 4
    assert sum(row["refill"] == 1 for row in first) == missing * 4, "only what is missing is asked"
    asked = [row["picture"] for row in first]
    assert len(set(asked)) * 4 == len(asked), "nobody is asked twice in a generation"
    assert trainer.generated_tokens == sum(row["tokens"] for row in rows)
    for row in rows:
        assert row["reward"] == pytest.approx(row["reward/mine"], abs=1e-6)
        assert row["useful"] <= (len(row["question"]) % 2 == 0)


def test_what_dynamic_sampling_leaves_out_does_not_change_the_gradient_of_the_rest(
    trainer_of: Callable[..., RoundTrainer],
) -> None:
    """Flat groups skipped against flat groups run: the same weights; only their tokens are not counted, if asked so."""
    found = []
    for skips in (True, False):
        trainer = trainer_of(some_flat, f"skip {skips}", micro_batch=8)
        if not skips:
            type(trainer)._flat_groups_add_nothing, kept = (
                property(lambda _self: False),
                type(trainer)._flat_groups_add_nothing,
            )
        try:
            trainer.train()
        finally:
            if not skips:
                type(trainer)._flat_groups_add_nothing = kept
        found.append(weights_of(trainer))
    for name, value in found[0].items():
        torch.testing.assert_close(value, found[1][name], rtol=1e-4, atol=1e-5)


def test_a_micro_batch_that_does_not_fit_is_halved_and_nothing_is_lost(
    trainer_of: Callable[..., RoundTrainer], caplog: pytest.LogCaptureFixture
) -> None:
    settings = {"micro_batch": 8, "generations": 1, "learning_rate": 1e-4}
    calm = trainer_of(name="calm", **settings)
    calm.train()
    short = trainer_of(name="short", **settings)
    times = {"backward": 0, "generation": 0}

    def in_the_second_backward(gradient: torch.Tensor) -> torch.Tensor:
        times["backward"] += 1
        if times["backward"] == 2:  # other layers have their gradients by then
            raise torch.OutOfMemoryError("no memory left")
        return gradient

    def in_the_first_generation(_module: Any, _args: Any, kwargs: Any) -> None:
        if kwargs.get("past_key_values") is not None:
            times["generation"] += 1
            if times["generation"] == 1:
                raise torch.OutOfMemoryError("no memory left")

    body = short.model.model.language_model
    body.layers[2].self_attn.q_proj.weight.register_hook(in_the_second_backward)
    body.register_forward_pre_hook(in_the_first_generation, with_kwargs=True)
    with caplog.at_level(logging.WARNING):
        torch.manual_seed(short.args.seed)
        short.train()
    assert "from now on prompts are asked in 2 parts" in caplog.text
    assert "from now on a micro-batch is trained in 2 parts" in caplog.text
    assert short.state.global_step == calm.state.global_step == 2
    assert len(short.reward_log) == len(calm.reward_log) == 16


def test_a_prompt_that_cannot_be_asked_is_out_of_memory_and_no_old_answers_are_trained_on(
    trainer_of: Callable[..., RoundTrainer],
) -> None:
    trainer = trainer_of(micro_batch=8, generations=2)

    def from_the_second_generation_on(_module: Any, _args: Any, kwargs: Any) -> None:
        if kwargs.get("past_key_values") is not None and trainer.state.global_step == 2:
            raise torch.OutOfMemoryError("no memory left")

    trainer.model.model.language_model.register_forward_pre_hook(from_the_second_generation_on, with_kwargs=True)
    with pytest.raises(torch.OutOfMemoryError):
        trainer.train()
    assert trainer.state.global_step == 2 and trainer.training_memory.parts == 1


@pytest.mark.parametrize("loss", ["dapo", "dr_grpo", "cispo", "gspo", "sapo"])
def test_pieces_give_the_whole_s_gradient(loss: str, trainer_of: Callable[..., RoundTrainer]) -> None:
    found = []
    for pieces in (1, 4):
        trainer = trainer_of(name=f"{pieces} pieces", micro_batch=8, generations=1, loss=loss)
        trainer.training_memory.parts = pieces
        trainer.train()
        found.append(weights_of(trainer))
    for name, value in found[0].items():
        torch.testing.assert_close(value, found[1][name], rtol=1e-4, atol=1e-5)


def test_a_checkpoint_that_was_not_finished_is_not_taken(tmp_path: Path) -> None:
    for number, complete in ((4, True), (12, True), (20, False)):
        (tmp_path / f"checkpoint-{number}").mkdir()
        if complete:
            (tmp_path / f"checkpoint-{number}" / "complete").touch()
    assert last_complete_checkpoint(tmp_path) == str(tmp_path / "checkpoint-12")
    assert last_complete_checkpoint(tmp_path / "nothing") is None
