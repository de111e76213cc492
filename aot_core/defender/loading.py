"""Loading a Defender's processor and model by name: the tiny base and the 7B model go the same way.

A name (shipped model, folder or hub name) goes in; what `AutoProcessor` and `AutoModelForImageTextToText` give
comes out, the processor with left padding, as generation wants it. The one fallback is confined here: Qwen's
processor insists on a video processor, and that one needs torchvision. Where torchvision is absent, the same processor
is loaded for images and text alone.
"""

from importlib.util import find_spec
from typing import Any, TypeAlias

import torch
from transformers import (
    AutoConfig,
    AutoModelForImageTextToText,
    AutoProcessor,
    BitsAndBytesConfig,
    Qwen2_5_VLProcessor,
)
from transformers.utils import logging
from transformers.utils.import_utils import is_torchvision_available

from aot_core.base_models.names import model_folder
from aot_core.contracts.learning import DType

Model: TypeAlias = Any
"""A `PreTrainedModel` that generates text from images and text. Its library's annotations leave out most of what the
Auto classes give (sub-modules, `generate`'s arguments), so that a type checker would reject every use."""
Processor: TypeAlias = Any
"""A `ProcessorMixin` with `tokenizer` and `image_processor`; `Any` for the same reason."""


class ImageTextProcessor(Qwen2_5_VLProcessor):
    """Qwen's processor without its video part, which is the only one that needs torchvision.

    transformers takes the parts of a processor from the parameters of its `__init__`: without `video_processor` there,
    none is looked for, loaded or saved. Nothing else is changed.
    """

    def __init__(self, image_processor=None, tokenizer=None, chat_template=None, **kwargs):
        kwargs.pop("video_processor", None)  # a saved config may name one
        super().__init__(image_processor, tokenizer, chat_template=chat_template, **kwargs)

    def to_dict(self) -> dict[str, Any]:
        """As saved: with a video part after the image part's measures, which machines with torchvision insist on."""
        saved = super().to_dict()
        image = saved.get("image_processor", {})
        shared = ("patch_size", "temporal_patch_size", "merge_size", "size", "image_mean", "image_std")
        saved["video_processor"] = {
            "video_processor_type": "Qwen2VLVideoProcessor",
            **{key: image[key] for key in shared if key in image},
        }
        return saved


# The saved config names its class: by the public name, so that AutoProcessor finds it on every machine.
ImageTextProcessor.__name__ = Qwen2_5_VLProcessor.__name__


def load_processor(name: str) -> Processor:
    """The processor of a model (shipped, folder or hub name), left-padding.

    Raises:
        UnknownModelError: a folder or shipped model that is not there (no hub is asked).
        ValueError: a model without an image processor.
    """
    source = str(model_folder(name) or name)
    if not is_torchvision_available() and AutoConfig.from_pretrained(source).model_type == "qwen2_5_vl":
        processor = ImageTextProcessor.from_pretrained(source)
    else:
        processor = AutoProcessor.from_pretrained(source)
    if not hasattr(processor, "image_processor"):
        raise ValueError(f"model {name!r} has no image processor; a Defender must be a vision-language model")
    processor.tokenizer.padding_side = "left"
    return processor


def load_model(
    name: str,
    dtype: DType = "float32",
    device: str = "cpu",
    *,
    attention: str | None = None,
    quantization: str | None = None,
) -> Model:
    """The model (shipped, folder or hub name) in the given precision on the given device, in eval mode.

    Args:
        attention: transformers' `attn_implementation`; None is its choice.
        quantization: "nf4" for weights of 4 bits (bitsandbytes), made ready for adapters on top.

    Raises UnknownModelError for a folder or shipped model that is not there (no hub is asked), ValueError for a package
    that a setting needs and that is not installed.
    """
    source = str(model_folder(name) or name)
    logging.disable_progress_bar()  # a bar a load, many loads a campaign
    given: dict[str, Any] = {"dtype": getattr(torch, dtype)}
    if attention is not None:
        flash = attention == "flash_attention_2"
        _needs(flash, "flash_attn", "model.attention flash_attention_2")
        if flash and device == "cpu":
            raise ValueError("model.attention flash_attention_2 works on GPUs only; use sdpa on the CPU")
        given["attn_implementation"] = attention
    if quantization is None:
        model: Model = AutoModelForImageTextToText.from_pretrained(source, **given)
        return model.to(device).eval()
    _needs(True, "bitsandbytes", f"model.quantization {quantization}")
    given["quantization_config"] = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=quantization,
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=getattr(torch, dtype),
    )
    return AutoModelForImageTextToText.from_pretrained(source, device_map={"": device}, **given).eval()


def _needs(wanted: bool, package: str, setting: str) -> None:
    if wanted and find_spec(package) is None:
        raise ValueError(f"{setting} needs the package {package}, which is not installed; install it, or change it")
