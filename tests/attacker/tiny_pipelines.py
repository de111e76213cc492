"""The big editors at tiny configs, random weights: built, saved, and so made to be loaded as the published ones are."""

from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderKLQwenImage,
    FlowMatchEulerDiscreteScheduler,
    FluxKontextPipeline,
    FluxTransformer2DModel,
    QwenImageEditPipeline,
    QwenImageEditPlusPipeline,
    QwenImageTransformer2DModel,
)
from transformers import (
    AutoTokenizer,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTokenizer,
    Qwen2_5_VLForConditionalGeneration,
    T5Config,
    T5EncoderModel,
    T5TokenizerFast,
)
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from aot_core.attacker.qwen_edit import ImageTextProcessor
from aot_core.base_models.names import SHIPPED

READER = SHIPPED / "aot-tiny-vl"
"""A Qwen2.5-VL of the shipped Defender's size, its tokenizer and image processor."""
TEXT_WIDTH = 128


def scheduler() -> FlowMatchEulerDiscreteScheduler:
    """As published: shifted by the resolution; Qwen's also ends above 0."""
    return FlowMatchEulerDiscreteScheduler(
        use_dynamic_shifting=True, base_shift=0.5, max_shift=0.9, max_image_seq_len=8192, shift_terminal=0.02
    )


def save_qwen(folder: Path, *, plus: bool) -> None:
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(READER)
    pipeline: Any = (QwenImageEditPlusPipeline if plus else QwenImageEditPipeline)(
        scheduler=scheduler(),
        vae=AutoencoderKLQwenImage(
            base_dim=4,
            z_dim=4,
            dim_mult=[1, 1, 1, 1],
            num_res_blocks=1,
            latents_mean=[0.1, -0.2, 0.3, 0.0],
            latents_std=[1.1, 0.9, 1.2, 1.0],
        ),
        text_encoder=Qwen2_5_VLForConditionalGeneration.from_pretrained(READER),
        tokenizer=tokenizer,
        processor=ImageTextProcessor(Qwen2VLImageProcessorPil.from_pretrained(READER), tokenizer),
        transformer=QwenImageTransformer2DModel(
            in_channels=16,
            out_channels=4,
            num_layers=2,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=TEXT_WIDTH,
            axes_dims_rope=(4, 6, 6),
        ),
    )
    pipeline.save_pretrained(folder)


def save_flux(folder: Path) -> None:
    torch.manual_seed(0)
    width = 32
    text: dict[str, Any] = {"hidden_size": width, "intermediate_size": 37, "num_hidden_layers": 2, "vocab_size": 300}
    signs = "abcdefghijklmnopqrstuvwxyz.,0123456789?:"
    words = ["<|startoftext|>", "<|endoftext|>", *signs, *(f"{sign}</w>" for sign in signs)]
    letters = [(character, -3.0) for character in "▁abcdefghijklmnopqrstuvwxyzAR.,0123456789"]
    pipeline = FluxKontextPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, shift=3.0),
        vae=AutoencoderKL(
            block_out_channels=(4, 4, 4, 4),
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            norm_num_groups=2,
            latent_channels=4,
            shift_factor=0.1159,
            scaling_factor=0.3611,
            use_quant_conv=False,
            use_post_quant_conv=False,
        ),
        text_encoder=CLIPTextModel(CLIPTextConfig(**text, num_attention_heads=4, eos_token_id=1, projection_dim=width)),
        tokenizer=CLIPTokenizer(
            vocab={word: number for number, word in enumerate(words)},
            merges=[],
            model_max_length=77,
        ),
        text_encoder_2=T5EncoderModel(
            T5Config(vocab_size=200, d_model=width, d_kv=8, d_ff=37, num_layers=2, num_heads=4)
        ),
        tokenizer_2=T5TokenizerFast(vocab=[("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *letters], extra_ids=0),
        transformer=FluxTransformer2DModel(
            in_channels=16,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=width,
            pooled_projection_dim=width,
            guidance_embeds=True,
            axes_dims_rope=(4, 6, 6),
        ),
    )
    pipeline.save_pretrained(folder)
