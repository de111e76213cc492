"""First phase of the tiny editor's pretraining: the autoencoder learns to draw the procedural world.

Scenes are drawn on the fly, so that no image is seen twice. Object pixels weigh more than the ground, which
fills most of an image and is learned at once.
"""

import math

import numpy as np
import torch
from torch import Tensor
from tqdm import trange

from aot_core.attacker.tiny_autoencoder import TinyAutoencoder
from aot_core.attacker.tiny_edit import images_to_pixels
from aot_core.contracts.base import Frozen
from aot_core.tracking.protocol import Tracker
from aot_core.worlds.shapes import world


class AutoencoderRecipe(Frozen):
    steps: int = 3000
    batch: int = 32
    learning_rate: float = 2e-3
    latent_noise: float = 0.1
    """Standard deviation of the noise on the unit-variance latents: near latents then decode alike."""
    object_weight: float = 4.0
    max_objects: int = 8


def train_autoencoder(recipe: AutoencoderRecipe, seed: int, tracker: Tracker) -> tuple[TinyAutoencoder, list[float]]:
    """Train from nothing. Returns the model in eval mode and the loss curve (a figure each 50 steps), which is tracked
    as `autoencoder/loss`."""
    torch.manual_seed(seed)
    rng = np.random.default_rng([seed, 1])
    noise = torch.Generator().manual_seed(seed + 1)
    model = TinyAutoencoder().to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.learning_rate, betas=(0.9, 0.99), weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, warm_cosine(recipe.steps))
    curve: list[float] = []
    running = 0.0
    for step in trange(recipe.steps, desc="autoencoder", mininterval=5):
        pixels, weight = _batch(rng, recipe)
        loss = (weight * (model(pixels, recipe.latent_noise, noise) - pixels).abs()).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        running += float(loss.detach()) / 50
        if step % 50 == 49:
            curve.append(running)
            tracker.log_metrics({"autoencoder/loss": running}, step=step)
            running = 0.0
    return model.to(memory_format=torch.contiguous_format).eval(), curve  # pyright: ignore[reportCallIssue]


def warm_cosine(steps: int, warm: int = 100, floor: float = 0.01):
    """The learning rate's factor at a step: a linear rise, then half a cosine down to `floor`."""

    def factor(step: int) -> float:
        if step < warm:
            return (step + 1) / warm
        return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warm) / max(1, steps - warm))))

    return factor


def _batch(rng: np.random.Generator, recipe: AutoencoderRecipe) -> tuple[Tensor, Tensor]:
    """Images (B, 3, H, W) in -1..1 and loss weights (B, 1, H, W): higher where an object is drawn."""
    drawn, grounds = [], []
    for _ in range(recipe.batch):
        objects = world.random_objects(rng, int(rng.integers(1, recipe.max_objects + 1)))
        backdrop = world.random_backdrop(rng)
        drawn.append(world.render(objects, backdrop))
        grounds.append(world.render((), backdrop))
    pixels = images_to_pixels(drawn)
    differs = (pixels - images_to_pixels(grounds)).abs().amax(1, keepdim=True) > 0.02
    return pixels, 1 + (recipe.object_weight - 1) * differs.float()
