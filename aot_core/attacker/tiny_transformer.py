"""The tiny editor's rectified-flow transformer: noisy latents, source latents, time and instruction to a
velocity.

Latents (B, C, h, w) are packed 2 x 2 into tokens, as Qwen-Image does; one token then is one cell of the
procedural world. The blocks are PixArt's (self-attention, cross-attention to the words, one shared adaptive
layer norm for the time). What is predicted is the clean latent, `source + gate * (content - source)` with a
gate that starts shut, so that "leave it alone" is the default; the velocity follows from it.
"""

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.modeling_utils import ModelMixin
from diffusers.models.normalization import AdaLayerNormSingle
from torch import Tensor, nn

PACK = 2
"""Latents a side of a token."""
_MIN_TIME = 0.02
"""The velocity is (x_t - x_0) / t: below this time it is not trusted."""


def pack(latents: Tensor) -> Tensor:
    """(B, C, h, w) to (B, h/2 * w/2, 4C), row by row."""
    batch, channels, height, width = latents.shape
    cut = latents.reshape(batch, channels, height // PACK, PACK, width // PACK, PACK)
    return cut.permute(0, 2, 4, 1, 3, 5).reshape(batch, (height // PACK) * (width // PACK), channels * PACK**2)


def unpack(tokens: Tensor, height: int, width: int) -> Tensor:
    """The inverse of `pack`, for latents of `height` x `width`."""
    batch, _, features = tokens.shape
    channels = features // PACK**2
    cut = tokens.reshape(batch, height // PACK, width // PACK, channels, PACK, PACK)
    return cut.permute(0, 3, 1, 4, 2, 5).reshape(batch, channels, height, width)


class TinyEditTransformer(ModelMixin, ConfigMixin):
    """A diffusion transformer over packed latents with a gated clean-latent head."""

    config_name = "config.json"

    @register_to_config
    def __init__(
        self,
        latent_channels: int = 8,
        latent_size: int = 8,
        width: int = 128,
        layers: int = 3,
        heads: int = 4,
        feed_forward: int = 384,
        text_width: int = 128,
    ) -> None:
        super().__init__()
        features = latent_channels * PACK**2
        self.proj_in = nn.Linear(2 * features, width)
        self.positions = nn.Parameter(0.5 * torch.randn(1, (latent_size // PACK) ** 2, width))
        self.time = AdaLayerNormSingle(width)
        self.blocks = nn.ModuleList(
            BasicTransformerBlock(
                width,
                heads,
                width // heads,
                cross_attention_dim=text_width,
                activation_fn="gelu-approximate",
                attention_bias=True,
                norm_type="ada_norm_single",
                norm_elementwise_affine=False,
                norm_eps=1e-6,
                ff_inner_dim=feed_forward,
            )
            for _ in range(layers)
        )
        self.norm_out = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.scale_shift_table = nn.Parameter(torch.randn(2, width) / width**0.5)
        self.proj_out = nn.Linear(width, features + 1)
        with torch.no_grad():
            self.proj_out.weight.mul_(0.1)
            self.proj_out.bias[-1] = -2.0

    def predict_clean(
        self, latents: Tensor, source: Tensor, timestep: Tensor, text: Tensor, text_mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The clean latents (B, C, h, w) that `latents` is a noisy version of, and the gate's logits (B,
        tokens).

        `timestep` (B,) is the flow's time in 0..1, 1 being noise; `text` is (B, L, D), `text_mask` (B, L).
        Raises ValueError when the latents are not of the size the model was made for.
        """
        size = self.config["latent_size"]
        if latents.shape[-2:] != (size, size) or source.shape != latents.shape:
            raise ValueError(
                f"latents are {tuple(latents.shape)}, source {tuple(source.shape)}; this editor takes "
                f"{size}x{size} latents, which is images of {8 * size}x{8 * size} pixels"
            )
        packed_source = pack(source)
        hidden = self.proj_in(torch.cat([pack(latents), packed_source], -1)) + self.positions
        modulation, time = self.time(timestep * 1000.0, hidden_dtype=hidden.dtype)
        bias = (1 - text_mask.to(hidden.dtype)).unsqueeze(1) * -1e4
        for block in self.blocks:
            hidden = block(hidden, encoder_hidden_states=text, encoder_attention_mask=bias, timestep=modulation)
        shift, scale = (self.scale_shift_table[None] + time[:, None]).chunk(2, dim=1)
        out = self.proj_out(self.norm_out(hidden) * (1 + scale) + shift)
        content, gate = out[..., :-1], out[..., -1]
        clean = packed_source + torch.sigmoid(gate)[..., None] * (content - packed_source)
        return unpack(clean, size, size), gate

    def forward(self, latents: Tensor, source: Tensor, timestep: Tensor, text: Tensor, text_mask: Tensor) -> Tensor:
        """The velocity dx/dt = (x_t - x_0) / t of the rectified flow x_t = (1 - t) x_0 + t noise."""
        clean, _ = self.predict_clean(latents, source, timestep, text, text_mask)
        return (latents - clean) / timestep.clamp(min=_MIN_TIME)[:, None, None, None]
