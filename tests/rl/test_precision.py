from pathlib import Path

import pytest
import torch

from aot_core.contracts.learning import LoraSettings, ModelSettings
from aot_core.contracts.loading import load_campaign
from aot_core.rl.precision import warn_of_merging, warn_of_rounding

SMOKE = Path(__file__).parents[2] / "configs" / "smoke.toml"


@pytest.mark.parametrize(("dtype", "moves"), [("float32", True), ("bfloat16", False)])
def test_what_the_warning_says_is_so(dtype: str, moves: bool, caplog: pytest.LogCaptureFixture) -> None:
    """A hundred steps at the paper's learning rate, on a weight of usual size."""
    weight = torch.nn.Parameter(torch.full((4,), 0.02, dtype=getattr(torch, dtype)))
    before = weight.detach().clone()
    optimizer = torch.optim.AdamW([weight], lr=1e-6, weight_decay=0.0)
    weight.grad = torch.ones_like(weight)
    for _ in range(100):
        optimizer.step()
    assert torch.equal(weight, before) != moves

    settings = ModelSettings.model_validate({"dtype": dtype})
    assert warn_of_rounding("defender_round", settings, 1e-6) != moves
    assert ("Set defender_round.model.lora" in caplog.text) != moves


def test_all_weights_in_float16_are_refused_by_name_and_for_a_reason() -> None:
    weight = torch.nn.Parameter(torch.full((4,), 0.02, dtype=torch.float16))
    optimizer = torch.optim.AdamW([weight], lr=1e-3, weight_decay=0.0, foreach=False)
    (weight * 1e-9).sum().backward()
    assert weight.grad is not None and not weight.grad.any(), "a gradient of 1e-9 is 0"
    optimizer.step()
    assert not weight.isfinite().any(), "0 / (0 + epsilon), where epsilon is 0 too"

    for stage in ("warm_start_attacker", "warm_start_defender", "attacker_round", "defender_round"):
        with pytest.raises(ValueError, match=rf"{stage}\.model.*float16 would train all weights.*bfloat16 or float32"):
            load_campaign(SMOKE, [f"{stage}.model.dtype=float16"])
        sections = [f"{stage}.model.dtype=float16", f"{stage}.model.lora.rank=4"]
        assert getattr(load_campaign(SMOKE, sections), stage).model.dtype == "float16"


def test_adapters_are_in_float32(caplog: pytest.LogCaptureFixture) -> None:
    assert not warn_of_rounding("curate", ModelSettings(dtype="bfloat16", lora=LoraSettings()), 1e-6)
    assert not caplog.messages


def test_merging_in_half_precision_is_said(caplog: pytest.LogCaptureFixture) -> None:
    warn_of_merging("a-base", "float32")
    assert not caplog.messages
    warn_of_merging("a-base", "bfloat16")
    assert "merged into the bfloat16 weights of a-base" in caplog.text
