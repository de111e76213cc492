import copy
from pathlib import Path

import pytest
import torch
from peft import PeftModel

from aot_core.contracts.errors import CheckpointError
from aot_core.contracts.learning import DefenderModelSettings, LoraSettings
from aot_core.defender.checkpoints import load_defender, load_trainable, save

LORA = DefenderModelSettings(lora=LoraSettings(rank=2, alpha=4))


@pytest.fixture(scope="module")
def base(untrained, tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("base")
    untrained[0].save_pretrained(folder)
    untrained[1].save_pretrained(folder)
    return str(folder)


def test_a_full_model_comes_back(untrained, base: str, tmp_path: Path) -> None:
    model = copy.deepcopy(untrained[0])
    with torch.no_grad():
        model.model.language_model.norm.weight.mul_(2)
    save(model, untrained[1], tmp_path, "base")
    again = load_defender(tmp_path, base).model
    assert all(torch.equal(again.state_dict()[key], value) for key, value in model.state_dict().items())


def test_an_adapter_is_put_on_the_base_and_trained_on(base: str, tmp_path: Path, asked) -> None:
    model, processor = load_trainable(None, base, LORA, "cpu")
    assert isinstance(model, PeftModel)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.add_(0.05)
    save(model, processor, tmp_path, "aot-tiny-vl")
    assert sorted(p.name for p in (tmp_path / "adapter").iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    assert "aot-tiny-vl" in (tmp_path / "adapter" / "adapter_config.json").read_text()

    merged = load_defender(tmp_path, base)
    further, _ = load_trainable(tmp_path, base, LORA, "cpu")
    trained = [name for name, parameter in further.named_parameters() if parameter.requires_grad]
    assert trained and all("lora_" in name for name in trained)
    text = "<|vision_start|><|image_pad|><|vision_end|>?"
    inputs = processor(images=[asked[0][0]], text=[text], return_tensors="pt")
    with torch.no_grad():
        expected = model.eval()(**inputs).logits
        torch.testing.assert_close(merged.model(**inputs).logits, expected, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(further.eval()(**inputs).logits, expected, atol=1e-5, rtol=1e-5)
        assert not torch.allclose(load_defender(None, base).model(**inputs).logits, expected, atol=1e-2)


def test_in_half_precision_the_defender_asked_is_the_one_that_was_trained(base: str, tmp_path: Path, asked) -> None:
    """Merged, most of what an adapter has learned would be rounded away."""
    settings = LORA.model_copy(update={"dtype": "bfloat16"})
    model, processor = load_trainable(None, base, settings, "cpu")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.add_(0.002)
    save(model, processor, tmp_path, "base")
    text = "<|vision_start|><|image_pad|><|vision_end|>?"
    inputs = processor(images=[asked[0][0]], text=[text], return_tensors="pt")
    kept = load_defender(tmp_path, base, dtype="bfloat16")
    with torch.no_grad():
        trained, loaded = (one.eval()(**inputs).logits for one in (model, kept.model))
    assert torch.equal(loaded, trained)
    said = kept.answer([asked[0][0]], [asked[0][1]], samples=2, temperature=1.0, seed=0)
    assert said == kept.answer([asked[0][0]], [asked[0][1]], samples=2, temperature=1.0, seed=0)

    merged = load_defender(tmp_path, base, dtype="bfloat16", merge=True).model
    assert not isinstance(merged, PeftModel)
    with torch.no_grad():
        assert not torch.equal(merged(**inputs).logits, trained)
    going_on, _ = load_trainable(tmp_path, base, DefenderModelSettings(dtype="bfloat16"), "cpu")
    assert not isinstance(going_on, PeftModel)


def test_what_cannot_be_loaded_says_why(untrained, base: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="holds neither model/ nor adapter/"):
        load_defender(tmp_path, base)
    save(*untrained, tmp_path, "base")
    with pytest.raises(CheckpointError, match=r"holds a full model.*model\.lora"):
        load_trainable(tmp_path, base, LORA, "cpu")
