"""Flow-matching SFT: the editor learns the data set's implantation pairs (arXiv 2602.22227, the Attacker's cold
start).

Pairs (clean image, edited image, instruction) flow in, are encoded once, and the transformer's velocity is
fitted to noise - edited latents, more where the pair differs. The weights change in place; the curve comes
out.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import trange

from aot_core.attacker.conditioning import Conditioning
from aot_core.attacker.editing import FlowEditor
from aot_core.attacker.scenes import AttackError
from aot_core.contracts.errors import NonFiniteLossError
from aot_core.contracts.scene import Sample
from aot_core.contracts.warm_start_attacker import WarmStartAttackerConfig
from aot_core.data.dataset import load_image, read_samples
from aot_core.rl.gradients import clip_gradients
from aot_core.rl.precision import warn_of_rounding
from aot_core.tracking.protocol import Tracker
from aot_core.worlds.proposals import with_question

EARLIEST = 0.05
"""Flow times below this are not trained: the velocity's error there is the clean latent's, blown up."""
DIFFERS_ABOVE = 0.25
"""Root mean square difference of a latent (unit variance) from which a pair is said to differ there."""
_LOG_EVERY = 10


class EncodedPairs(NamedTuple):
    """B pairs, ready to train on."""

    condition: Conditioning
    target: Tensor
    """Clean latents of the edited images."""


def load_pairs(folder: Path, rng: np.random.Generator, count: int) -> list[Sample]:
    """`count` samples with an edited image of the `warm_start` split, chosen by `rng` (all where there are
    fewer)."""
    pairs = [sample for sample in read_samples(folder, "warm_start") if sample.edited_image]
    if not pairs:
        raise AttackError("dataset has no pairs in its warm_start split; raise prepare_data.splits.warm_start")
    return [pairs[int(i)] for i in rng.permutation(len(pairs))[:count]]


def fit_pairs(
    editor: FlowEditor,
    folder: Path,
    pairs: Sequence[Sample],
    config: WarmStartAttackerConfig,
    rng: np.random.Generator,
    tracker: Tracker,
) -> list[float]:
    """Train the editor on the pairs. Returns the loss of every update. Raises NonFiniteLossError for a loss or
    gradients that are not finite."""
    warn_of_rounding("warm_start_attacker", config.model, config.learning_rate)
    generator = torch.Generator().manual_seed(config.seed)
    optimizer = torch.optim.AdamW(editor.trainable(), lr=config.learning_rate, betas=(0.9, 0.99), weight_decay=0.0)
    warm = max(1, round(config.warmup_ratio * config.updates))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _warm_cosine(step, warm, config.updates))
    batches = encode_pairs(editor, folder, pairs, config, rng)
    curve: list[float] = []
    progress = trange(config.updates, desc="warm start", disable=None)
    for update in progress:
        optimizer.zero_grad()
        total = 0.0
        for _ in range(config.gradient_accumulation):
            batch = batches[int(rng.integers(len(batches)))]
            loss = pair_loss(editor, batch, config.changed_weight, generator) / config.gradient_accumulation
            loss.backward()
            total += float(loss.detach())
        if not math.isfinite(total):
            raise NonFiniteLossError(
                f"warm_start_attacker: the loss is {total} at update {update}; lower warm_start_attacker.learning_rate"
            )
        clip_gradients(editor.trainable(), config.max_grad_norm, "warm_start_attacker")
        optimizer.step()
        schedule.step()
        curve.append(total)
        if update % _LOG_EVERY == _LOG_EVERY - 1:
            recent = float(np.mean(curve[-_LOG_EVERY:]))
            tracker.log_metrics({"attacker/sft_loss": recent}, step=update)
            progress.set_postfix(loss=f"{recent:.4f}")
    return curve


def encode_pairs(
    editor: FlowEditor,
    folder: Path,
    pairs: Sequence[Sample],
    config: WarmStartAttackerConfig,
    rng: np.random.Generator,
) -> list[EncodedPairs]:
    """Encode all pairs once, in batches of one training step; most of a small editor's time would go
    there."""
    batches = []
    for first in range(0, len(pairs), config.batch_size):
        batch = pairs[first : first + config.batch_size]
        told = [
            with_question(pair.instruction, pair.question.text if rng.random() < config.question_share else "")
            for pair in batch
        ]
        condition = editor.encode([load_image(folder, pair.image) for pair in batch], told)
        batches.append(EncodedPairs(condition, editor.latents([_edited(folder, pair) for pair in batch])))
    return batches


def pair_loss(editor: FlowEditor, pairs: EncodedPairs, changed_weight: float, generator: torch.Generator) -> Tensor:
    """E |v(x_t, t) - (e - x_0)|^2 with x_t = (1 - t) x_0 + t e (rectified flow, arXiv 2209.03003, equation
    1).

    Times lie as dense as the editor's own schedule. What differs from the source weighs `changed_weight`
    times.
    """
    condition, target = pairs
    noise = editor.noise(len(target), generator)
    grid = editor.sigmas(1000)
    index = torch.randint(int((grid > EARLIEST).sum()), (len(target),), generator=generator)
    time = grid[index.to(grid.device)].to(target)
    t = time.view(-1, *[1] * (target.ndim - 1))
    channels = condition.channel_dim
    velocity = editor.velocity((1 - t) * target + t * noise, time, condition)
    error = (velocity - (noise - target)).float().pow(2).mean(channels, keepdim=True)
    change = (target - condition.source.to(target)).float().pow(2).mean(channels, keepdim=True).sqrt()
    differs = change > DIFFERS_ABOVE
    # t^2 takes the velocity's error back to the clean latent's, tempered so that late steps still count.
    weight = (1 + (changed_weight - 1) * differs.float()) * t.float() ** 2 / (t.float() ** 2 + 0.1)
    return (weight * error).mean()


def _edited(folder: Path, pair: Sample) -> Image.Image:
    assert pair.edited_image is not None, "load_pairs gives pairs only"
    return load_image(folder, pair.edited_image)


def _warm_cosine(step: int, warm: int, updates: int) -> float:
    if step < warm:
        return (step + 1) / warm
    return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, updates - warm)))
