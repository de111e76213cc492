"""FLUX.1 Kontext as a flow editor: CLIP's pooled prompt and T5's hidden states, guidance distilled into the weights."""

from typing import ClassVar

import torch
from diffusers.pipelines.flux.pipeline_flux_kontext import FluxKontextPipeline
from PIL import Image
from torch import Tensor

from aot_core.attacker.encodings import Encoding
from aot_core.attacker.packed import EncodedPrompt, PackedEditor


class FluxKontextEditor(PackedEditor):
    """`FluxKontextPipeline`."""

    text_encoders: ClassVar[tuple[str, ...]] = ("text_encoder", "text_encoder_2")
    prompt_sees_image: ClassVar[bool] = False

    @classmethod
    def load_pipeline(cls, source: str, dtype: torch.dtype) -> FluxKontextPipeline:
        """From a folder or hub name."""
        return FluxKontextPipeline.from_pretrained(source, dtype=dtype)

    def _prompt(self, image: Image.Image, text: str) -> Encoding:
        del image  # both encoders read words alone
        hidden, pooled, _ = self.pipeline.encode_prompt(
            [text], device=self.device, max_sequence_length=self.settings.max_prompt_tokens
        )
        # T5's padding is read like the rest: the transformer was trained so, and takes no mask.
        mask = torch.ones(hidden.shape[:2], dtype=torch.bool, device=self._home)
        return hidden.to(self._home, self.dtype), mask, pooled.to(self._home, self.dtype)

    def _packed(self, pixels: Tensor) -> Tensor:
        # With latents given no noise is drawn; they come back as they are.
        size = (self.channels, self.side, self.side, self.dtype, self.device, None, pixels)
        return self.pipeline.prepare_latents(pixels, 1, *size)[1]

    def _decoded(self, latents: Tensor) -> Tensor:
        vae = self.pipeline.vae
        unpacked = self.pipeline._unpack_latents(latents, self.side, self.side, self.pipeline.vae_scale_factor)
        return vae.decode(unpacked / vae.config.scaling_factor + vae.config.shift_factor, return_dict=False)[0]

    def _predict(self, latents: Tensor, time: Tensor, source: Tensor, prompt: EncodedPrompt) -> Tensor:
        transformer, tokens = self.pipeline.transformer, self.latent_side // 2
        places = self.pipeline._prepare_latent_image_ids(1, tokens, tokens, self.device, self.dtype)
        of_source = places.clone()
        of_source[..., 0] = 1
        guidance = None
        if transformer.config.guidance_embeds:
            guidance = torch.full((len(latents),), self.settings.guidance_scale, device=self.device)
        return transformer(
            hidden_states=torch.cat([latents, source], 1),
            timestep=time,
            guidance=guidance,
            pooled_projections=prompt.pooled,
            encoder_hidden_states=prompt.text,
            txt_ids=torch.zeros(prompt.text.shape[1], 3, device=self.device, dtype=self.dtype),
            img_ids=torch.cat([places, of_source]),
            joint_attention_kwargs={},
            return_dict=False,
        )[0][:, : latents.shape[1]]
