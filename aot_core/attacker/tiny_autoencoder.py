"""The tiny editor's autoencoder: 64 x 64 pixels <-> 8 x 8 latents of a few channels.

Pixels flow in as (B, 3, H, W) in -1..1 and become latents (B, C, H/8, W/8) of zero mean and unit variance a
channel (a batch normalisation without weights ends the encoder; its running statistics play the part of
`latents_mean` and `latents_std` in the big models' autoencoders), and back.
"""

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn

_FOLD = 4
"""Pixels a side that are folded into channels before the first convolution, and unfolded after the last."""


class _Residual(nn.Module):
    """x + conv(silu(conv(silu(x)))), the second convolution starting at zero."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        nn.init.zeros_(self.second.weight)

    def forward(self, x: Tensor) -> Tensor:
        silu = nn.functional.silu
        return x + self.second(silu(self.first(silu(x))))


class TinyAutoencoder(ModelMixin, ConfigMixin):
    """A convolutional autoencoder of factor 8. Deterministic; it is a codec, not a VAE.

    Its reach is short on purpose (a latent sees some 20 pixels around it), so that an edit stays where it was
    made.
    """

    config_name = "config.json"
    spatial_factor = 8

    @register_to_config
    def __init__(self, latent_channels: int = 8, fine_channels: int = 64, coarse_channels: int = 96) -> None:
        super().__init__()
        pixels = 3 * _FOLD**2
        self.encoder = nn.Sequential(
            nn.PixelUnshuffle(_FOLD),
            nn.Conv2d(pixels, fine_channels, 3, padding=1),
            _Residual(fine_channels),
            nn.Conv2d(fine_channels, coarse_channels, 2, stride=2),
            _Residual(coarse_channels),
            nn.Conv2d(coarse_channels, latent_channels, 1),
            nn.BatchNorm2d(latent_channels, affine=False, momentum=0.02),
        )
        self.decoder = nn.Sequential(
            nn.Conv2d(latent_channels, coarse_channels, 1),
            _Residual(coarse_channels),
            nn.Conv2d(coarse_channels, fine_channels * 4, 1),
            nn.PixelShuffle(2),
            _Residual(fine_channels),
            nn.Conv2d(fine_channels, pixels, 3, padding=1),
            nn.PixelShuffle(_FOLD),
        )

    @property
    def latent_channels(self) -> int:
        return self.config["latent_channels"]

    def encode(self, pixels: Tensor) -> Tensor:
        """(B, 3, H, W) in -1..1 to (B, C, H/8, W/8). Raises ValueError where H or W is no multiple of 8."""
        if pixels.shape[-1] % self.spatial_factor or pixels.shape[-2] % self.spatial_factor:
            height, width = pixels.shape[-2:]
            raise ValueError(f"image is {width}x{height}; give sides that are multiples of {self.spatial_factor}")
        return self.encoder(pixels)

    def decode(self, latents: Tensor) -> Tensor:
        """(B, C, h, w) to (B, 3, 8h, 8w), about -1..1, not clamped."""
        return self.decoder(latents)

    def forward(self, pixels: Tensor, noise: float = 0.0, generator: torch.Generator | None = None) -> Tensor:
        """Reconstruct, with Gaussian noise of standard deviation `noise` on the latents (training)."""
        latents = self.encode(pixels)
        if noise:
            spread = torch.randn(latents.shape, generator=generator, device="cpu").to(latents)
            latents = latents + noise * spread
        return self.decode(latents)
