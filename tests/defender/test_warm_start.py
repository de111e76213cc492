import copy
from pathlib import Path

import pytest
import torch

from aot_core.contracts.errors import NonFiniteLossError
from aot_core.contracts.warm_start_defender import WarmStartDefenderConfig
from aot_core.data.dataset import read_samples
from aot_core.defender.answering import chat_prompt
from aot_core.defender.training import common_arguments
from aot_core.defender.warm_start import WarmStartTrainer, sft_dataset, warm_start
from aot_core.tracking.protocol import NullTracker


@pytest.fixture
def trainer(untrained, dataset, tmp_path: Path) -> WarmStartTrainer:
    from trl import SFTConfig

    model, processor = untrained
    config = WarmStartDefenderConfig()
    arguments = SFTConfig(
        **common_arguments(tmp_path, config.model, "cpu", 0), completion_only_loss=True, max_length=None
    )
    return WarmStartTrainer(
        model=model,
        args=arguments,
        train_dataset=sft_dataset(read_samples(dataset), dataset),
        processing_class=processor,
    )


def test_only_the_answer_is_learned_token_by_token(trainer: WarmStartTrainer, asked) -> None:
    rows = [trainer.train_dataset[i] for i in range(len(asked))]
    batch = trainer.data_collator(rows)
    tokenizer = trainer.processing_class.tokenizer
    for i, (image, question) in enumerate(asked):
        prompt = trainer.processing_class(
            images=[image], text=[chat_prompt(trainer.processing_class, question.prompt)], return_tensors="pt"
        )
        answer = tokenizer(f"\\boxed{{{question.answer}}}<|im_end|>\n").input_ids
        expected = prompt.input_ids[0].tolist() + answer
        seen = batch["attention_mask"][i].bool()
        assert batch["input_ids"][i][seen].tolist() == expected
        labels = batch["labels"][i]
        assert labels[~seen].eq(-100).all()
        assert labels[seen].tolist() == [-100] * prompt.input_ids.shape[1] + answer
    pixels = torch.cat(
        [trainer.processing_class.image_processor([i], return_tensors="pt").pixel_values for i, _ in asked]
    )
    torch.testing.assert_close(batch["pixel_values"], pixels)


def test_training_lowers_the_loss_and_a_nan_ends_it(untrained, dataset, tmp_path: Path) -> None:
    model, processor = copy.deepcopy(untrained[0]), untrained[1]
    samples = read_samples(dataset)
    config = WarmStartDefenderConfig(epochs=6, batch_size=12, learning_rate=3e-3, warmup_ratio=0.0)
    place = {"scratch": tmp_path, "device": "cpu", "tracker": NullTracker()}
    outputs = warm_start(model, processor, samples, dataset, config, **place)
    assert (outputs.samples, outputs.updates) == (12, 6)
    assert outputs.last_loss < outputs.first_loss - 1

    with torch.no_grad():
        model.model.language_model.norm.weight.fill_(float("nan"))
    with pytest.raises(NonFiniteLossError, match=r"warm_start_defender: the loss became nan at update 0; no model"):
        warm_start(model, processor, samples, dataset, config, **place)


def test_a_gradient_that_is_not_finite_ends_the_last_update_too(untrained, dataset, tmp_path: Path) -> None:
    """One update, of a finite loss: no later loss tells that the weights are broken."""
    model, processor = copy.deepcopy(untrained[0]), untrained[1]
    model.model.language_model.norm.weight.register_hook(lambda gradient: gradient * float("inf"))
    config = WarmStartDefenderConfig(epochs=1, batch_size=12, warmup_ratio=0.0)
    output = tmp_path / "output"
    with pytest.raises(
        NonFiniteLossError, match=r"warm_start_defender: the gradient norm became (nan|inf) at update 1"
    ):
        warm_start(
            model,
            processor,
            read_samples(dataset),
            dataset,
            config,
            scratch=tmp_path,
            device="cpu",
            tracker=NullTracker(),
            output=output,
        )
    assert not output.exists()
