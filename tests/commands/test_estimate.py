"""The estimates of `aot plan` against real models and counted operations."""

import json
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForImageTextToText, Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from aot_core.base_models.names import SHIPPED
from aot_core.commands.estimate import PUBLISHED, Shape, _activations, estimate
from aot_core.contracts.learning import DefenderModelSettings
from aot_core.contracts.loading import load_campaign

TINY = str(SHIPPED / "aot-tiny-vl")
CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.mark.parametrize("name", [*PUBLISHED, "aot-tiny-vl"])
def test_parameters_are_counted_exactly(name: str) -> None:
    config = PUBLISHED[name] if name in PUBLISHED else json.loads((Path(TINY) / "config.json").read_text())
    with torch.device("meta"):
        model = Qwen2_5_VLForConditionalGeneration(
            Qwen2_5_VLConfig(
                text_config=config["text_config"] | {"tie_word_embeddings": config["tie_word_embeddings"]},
                vision_config=config["vision_config"],
                tie_word_embeddings=config["tie_word_embeddings"],
            )
        )
        model.tie_weights()
        shape = Shape.of(name)
        assert shape.visual == sum(p.numel() for p in model.model.visual.parameters())
        assert shape.language + shape.visual == sum(p.numel() for p in model.parameters())
        adapted = get_peft_model(model, LoraConfig(r=8, target_modules="all-linear", task_type="CAUSAL_LM"))
    lora = {n: p.numel() for n, p in adapted.named_parameters() if "lora_" in n}
    assert shape.lora(8, vision=True) == sum(lora.values())
    assert shape.lora(8, vision=False) == sum(size for n, size in lora.items() if ".visual." not in n)


def test_operations_are_those_that_torch_counts() -> None:
    model = AutoModelForImageTextToText.from_pretrained(TINY, attn_implementation="eager")
    shape = Shape.of("aot-tiny-vl")
    tokens, visual = 100, 16
    ids = torch.randint(0, 400, (1, tokens))
    ids[0, :visual] = model.config.image_token_id
    with FlopCounterMode(display=False) as counted, torch.no_grad():
        model(
            input_ids=ids,
            mm_token_type_ids=(ids == model.config.image_token_id).long(),
            pixel_values=torch.randn(visual * 4, 3 * 2 * 64),
            image_grid_thw=torch.tensor([[1, 8, 8]]),
        )
    # Eager attention looks at the tokens to come, too, and masks them.
    assert shape.forward(tokens, tokens, tokens, 1, visual) == pytest.approx(counted.get_total_flops(), rel=0.05)


def test_activations_are_those_that_a_forward_pass_keeps() -> None:
    """Counted exactly: the bytes that torch saves for the backward pass, weights aside."""
    model = AutoModelForImageTextToText.from_pretrained(TINY).model
    shape, tokens, visual = Shape.of("aot-tiny-vl"), 120, 16
    for frozen in (False, True):
        model.visual.requires_grad_(not frozen)
        weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
        kept: dict[int, int] = {}

        def note(tensor: torch.Tensor, kept=kept, weights=weights) -> torch.Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in weights:
                kept[storage.data_ptr()] = storage.nbytes()
            return tensor

        ids = torch.randint(0, 400, (4, tokens))
        ids[:, :visual] = model.config.image_token_id
        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            outputs = model(
                input_ids=ids,
                mm_token_type_ids=(ids == model.config.image_token_id).long(),
                pixel_values=torch.randn(4 * visual * 4, 3 * 2 * 64),
                image_grid_thw=torch.tensor([[1, 8, 8]] * 4),
            )
        estimated = _activations(shape, DefenderModelSettings(), 4 * tokens, 0, 0 if frozen else 4 * visual)
        assert estimated == pytest.approx(sum(kept.values()), rel=0.25), "frozen" if frozen else "trained"
        del outputs


def test_a_shared_prompt_and_a_smaller_batch_need_less() -> None:
    def memory(*overrides: str) -> float:
        return estimate(load_campaign(CONFIGS / "paper.toml", list(overrides)))[1].total_memory

    assert memory() < memory("defender_round.share_prompts=false")
    assert memory("defender_round.generation_prompts=1") <= memory()
    config = load_campaign(CONFIGS / "tiny.toml")
    shared, stock = (
        estimate(config.model_copy(update={"defender_round": config.defender_round.model_copy(update=change)}))[1]
        for change in ({}, {"share_prompts": False})
    )
    assert shared.operations < stock.operations / 3


def test_a_model_of_unknown_measures_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'someone/else' are not known here; give the model's folder"):
        Shape.of("someone/else")


@pytest.mark.parametrize(("name", "most"), [("single-gpu.toml", 80), ("paper.toml", 80)])
def test_the_large_configs_fit_the_cards_that_they_name(name: str, most: float) -> None:
    for one in estimate(load_campaign(CONFIGS / name)):
        assert one.total_memory / 2**30 < 0.85 * most, f"{one.stage}: {one.memory}"
