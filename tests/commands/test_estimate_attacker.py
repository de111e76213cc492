"""The editor's estimates of `aot plan` against real transformers and counted operations."""

from pathlib import Path

import pytest
import torch
from diffusers import QwenImageTransformer2DModel
from peft import LoraConfig, get_peft_model
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from aot_core.commands.estimate import estimate
from aot_core.commands.estimate_attacker import PUBLISHED_EDITORS, EditorShape, estimate_attacker
from aot_core.contracts.loading import load_campaign
from aot_core.contracts.warm_start_attacker import WarmStartAttackerConfig

CONFIGS = Path(__file__).parents[2] / "configs"
SMALL = {
    "patch_size": 2,
    "in_channels": 16,
    "out_channels": 4,
    "num_layers": 2,
    "attention_head_dim": 16,
    "num_attention_heads": 4,
    "joint_attention_dim": 48,
}


@pytest.mark.parametrize("config", [SMALL, PUBLISHED_EDITORS["Qwen/Qwen-Image-Edit"]], ids=["small", "published"])
def test_parameters_are_counted_exactly(config: dict) -> None:
    axes = (4, 6, 6) if config is SMALL else (16, 56, 56)
    with torch.device("meta"):
        model = QwenImageTransformer2DModel(**config, axes_dims_rope=axes)
        shape = EditorShape(config)
        assert shape.parameters == sum(parameter.numel() for parameter in model.parameters())
        # Adapters on 840 layers take long to make, and a layer is like the next: two tell.
        small = QwenImageTransformer2DModel(**config | {"num_layers": 2}, axes_dims_rope=axes)
        linear = [name for name, layer in small.named_modules() if isinstance(layer, torch.nn.Linear)]
        adapted = get_peft_model(small, LoraConfig(r=4, target_modules=linear))
    adapters = sum(p.numel() for name, p in adapted.named_parameters() if "lora_" in name)
    assert EditorShape(config | {"num_layers": 2}).lora(4) == adapters


def test_operations_are_those_that_torch_counts() -> None:
    model = QwenImageTransformer2DModel(**SMALL, axes_dims_rope=(4, 6, 6))
    image, text = 2 * 64, 40
    # torch counts attention's two products where they are made one by one.
    with FlopCounterMode(display=False) as counted, sdpa_kernel(SDPBackend.MATH), torch.no_grad():
        model(
            hidden_states=torch.randn(1, image, 16),
            encoder_hidden_states=torch.randn(1, text, 48),
            timestep=torch.tensor([0.5]),
            img_shapes=[[(1, 8, 8), (1, 8, 8)]],
        )
    assert EditorShape(SMALL).forward(image, text) == pytest.approx(counted.get_total_flops(), rel=0.02)


@pytest.mark.parametrize("name", ["paper.toml", "single-gpu.toml"])
def test_every_stage_fits_the_card_that_the_config_names(name: str) -> None:
    config = load_campaign(CONFIGS / name)
    for stage in (*estimate_attacker(config), *estimate(config)):
        assert stage.total_memory < 0.9 * 80e9, (stage.stage, stage.memory)


def test_a_defender_that_stays_does_not_fit_beside_the_editor() -> None:
    config = load_campaign(CONFIGS / "paper.toml")
    stays = config.attacker_round.model_copy(update={"defender_offload": False})
    _, round_ = estimate_attacker(config.model_copy(update={"attacker_round": stays}))
    assert round_.total_memory > 80e9


def test_offload_and_a_smaller_frame_need_less() -> None:
    config = load_campaign(CONFIGS / "paper.toml")

    def warm_start(**editor: object) -> WarmStartAttackerConfig:
        assert config.warm_start_attacker.editor is not None
        changed = config.warm_start_attacker.editor.model_copy(update=editor)
        return config.warm_start_attacker.model_copy(update={"editor": changed})

    def estimated(**editor: object):
        return estimate_attacker(config.model_copy(update={"warm_start_attacker": warm_start(**editor)}))[0]

    assert estimated().total_memory < estimated(offload=False).total_memory
    assert estimated().operations < estimated(resolution=1024).operations / 3


def test_an_editor_of_unknown_measures_is_left_out() -> None:
    assert estimate_attacker(load_campaign(CONFIGS / "tiny.toml")) == []
