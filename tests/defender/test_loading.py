import json
from pathlib import Path

import pytest
import torch
from transformers import Qwen2_5_VLForConditionalGeneration

from aot_core.base_models.names import UnknownModelError
from aot_core.defender.loading import load_model, load_processor


def test_saved_and_loaded_through_the_auto_classes(untrained, asked, tmp_path: Path) -> None:
    model, processor = untrained
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    again, processor_again = load_model(str(tmp_path)), load_processor(str(tmp_path))
    assert type(again) is Qwen2_5_VLForConditionalGeneration
    assert processor_again.tokenizer.padding_side == "left"
    # On a machine with torchvision, AutoProcessor refuses a folder without this section.
    video = json.loads((tmp_path / "processor_config.json").read_text())["video_processor"]
    assert (video["video_processor_type"], video["patch_size"]) == ("Qwen2VLVideoProcessor", 8)
    inputs = processor_again(images=[asked[0][0]], text=["<|image_pad|> hello"], return_tensors="pt")
    assert (inputs.input_ids == model.config.image_token_id).sum() == 16  # one token a cell
    with torch.no_grad():
        torch.testing.assert_close(again(**inputs).logits, model(**inputs).logits)


@pytest.mark.parametrize("load", [load_model, load_processor])
def test_a_missing_folder_is_an_error_and_no_hub_is_asked(load) -> None:
    with pytest.raises(UnknownModelError, match=r"\./nowhere"):
        load("./nowhere")


@pytest.mark.skipif(torch.cuda.is_available(), reason="these can be there on a machine with a GPU")
@pytest.mark.parametrize(
    ("setting", "says"),
    [
        (
            {"attention": "flash_attention_2"},
            "model.attention flash_attention_2 (needs the package|works on)",
        ),
        ({"quantization": "nf4"}, "model.quantization nf4 needs the package bitsandbytes"),
    ],
)
def test_what_is_not_installed_is_named(setting: dict[str, str], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        load_model("aot-tiny-vl", "bfloat16", **setting)
