"""Second phase of the tiny editor's pretraining: text encoder and transformer learn the flow from noise to
edit.

Pairs are drawn and encoded once (a pool of latents); every step draws from it a direction (forwards or
backwards), the words, the noise and the time anew. Sizes: B edits a batch, N tokens an image.
"""

import copy
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import trange
from transformers import PreTrainedTokenizerFast

from aot_core.attacker.tiny_autoencoder import TinyAutoencoder
from aot_core.attacker.tiny_edit import images_to_pixels
from aot_core.attacker.tiny_text import TinyTextEncoder, instruction_tokenizer, tokenize
from aot_core.attacker.tiny_transformer import TinyEditTransformer, pack
from aot_core.contracts.base import Frozen
from aot_core.recipes.editor_autoencoder import warm_cosine
from aot_core.recipes.editor_pairs import Pair, PairRecipe, changed_cells, draw_pair, tell
from aot_core.tracking.protocol import Tracker


class TransformerRecipe(Frozen):
    steps: int = 4500
    batch: int = 64
    pool: int = 16_000
    """Pairs drawn; each serves in both directions."""
    learning_rate: float = 1.5e-3
    weight_decay: float = 0.01
    ema: float = 0.998
    time_shift: float = 3.0
    """More training where the flow decides what to paint, near the noise; the scheduler's shift too."""
    changed_weight: float = 10.0
    gate_weight: float = 0.05
    pairs: PairRecipe = PairRecipe()


@dataclass
class Pool:
    pairs: list[Pair]
    clean_N: Tensor
    """(pool, C, h, w) in half precision."""
    edited_N: Tensor
    changed_N: Tensor
    """(pool, tokens) of bool."""


def train_transformer(
    recipe: TransformerRecipe,
    vae: TinyAutoencoder,
    seed: int,
    tracker: Tracker,
    start: tuple[TinyTextEncoder, TinyEditTransformer] | None = None,
) -> tuple[TinyTextEncoder, TinyEditTransformer, PreTrainedTokenizerFast, list[float]]:
    """Train on a frozen autoencoder, from `start` or from nothing. Returns the averaged (EMA) weights and the curve (a
    figure each 50 steps), which is tracked as `drawing/loss`, or `questions/loss` where there is a start."""
    rng = np.random.default_rng([seed, 2])
    torch.manual_seed(seed + 2)
    generator = torch.Generator().manual_seed(seed + 3)
    tokenizer = instruction_tokenizer()
    model = nn.ModuleDict(
        {
            "text": TinyTextEncoder(vocabulary=len(tokenizer), end_id=int(tokenizer.eos_token_id)),  # pyright: ignore
            "flow": TinyEditTransformer(latent_channels=vae.latent_channels),
        }
    )
    if start is not None:
        model = nn.ModuleDict({"text": start[0], "flow": start[1]}).train().requires_grad_(True)
    average = copy.deepcopy(model).eval().requires_grad_(False)
    pool = fill_pool(recipe, vae, rng)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=recipe.learning_rate, betas=(0.9, 0.98), weight_decay=recipe.weight_decay
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, warm_cosine(recipe.steps, warm=300))
    curve: list[float] = []
    running = 0.0
    progress = trange(recipe.steps, desc="transformer", mininterval=5)
    for step in progress:
        source, target, changed, instructions = _batch(recipe, pool, rng)
        ids, mask = tokenize(tokenizer, instructions)
        loss = flow_loss(recipe, model, source, target, changed, ids, mask, generator)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        # A short memory at first, so that the average does not carry the beginning along.
        _average(average, model, min(recipe.ema, (step + 1) / (step + 10)))
        running += float(loss.detach()) / 50
        if step % 50 == 49:
            curve.append(running)
            tracker.log_metrics({f"{'questions' if start else 'drawing'}/loss": running}, step=step)
            progress.set_postfix(loss=f"{running:.4f}")
            running = 0.0
    return average["text"], average["flow"], tokenizer, curve  # pyright: ignore[reportReturnType]


def flow_loss(
    recipe: TransformerRecipe,
    model: nn.ModuleDict,
    source: Tensor,
    target: Tensor,
    changed: Tensor,
    ids: Tensor,
    mask: Tensor,
    generator: torch.Generator,
) -> Tensor:
    """Rectified flow in its clean-latent form, changed tokens weighing more, and the gate told what changed.

    x_t = (1 - t) x_0 + t e; the squared error of x_0 weighs 1 / (t^2 + 0.1), which is the velocity's error, blunted
    near the end.
    """
    uniform = torch.rand(len(source), generator=generator)
    time = recipe.time_shift * uniform / (1 + (recipe.time_shift - 1) * uniform)
    noise = torch.randn(source.shape, generator=generator)
    t = time[:, None, None, None]
    text = model["text"](ids, mask)
    clean, gate = model["flow"].predict_clean((1 - t) * target + t * noise, source, time, text, mask)  # pyright: ignore
    error = (pack(clean) - pack(target)).pow(2).mean(-1)
    weight = (1 + (recipe.changed_weight - 1) * changed) / (time[:, None] ** 2 + 0.1)
    gate_loss = nn.functional.binary_cross_entropy_with_logits(gate, changed)
    return (weight * error).mean() + recipe.gate_weight * gate_loss


@torch.no_grad()
def fill_pool(recipe: TransformerRecipe, vae: TinyAutoencoder, rng: np.random.Generator) -> Pool:
    """Draw the pairs and encode both images of each."""
    pairs, clean, edited = [], [], []
    for _ in trange(0, recipe.pool, 64, desc="encoding pairs", mininterval=5):
        drawn = [draw_pair(rng, recipe.pairs) for _ in range(64)]
        images = [pair.images() for pair in drawn]
        clean.append(vae.encode(images_to_pixels([before for before, _ in images])).half())
        edited.append(vae.encode(images_to_pixels([after for _, after in images])).half())
        pairs.extend(drawn)
    changed = torch.from_numpy(np.stack([changed_cells(pair) for pair in pairs]))
    return Pool(pairs, torch.cat(clean), torch.cat(edited), changed)


def _batch(recipe: TransformerRecipe, pool: Pool, rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor, list[str]]:
    """Source and target latents (B, C, h, w), changed tokens (B, N) as 0/1, and the instructions."""
    chosen = rng.integers(len(pool.pairs), size=recipe.batch)
    backwards = rng.random(recipe.batch) < 0.5
    instructions = [
        tell(rng, pool.pairs[int(i)], recipe.pairs, bool(b)) for i, b in zip(chosen, backwards, strict=True)
    ]
    index = torch.from_numpy(chosen)
    before, after = pool.clean_N[index].float(), pool.edited_N[index].float()
    swap = torch.from_numpy(backwards)[:, None, None, None]
    source, target = torch.where(swap, after, before), torch.where(swap, before, after)
    changed = pool.changed_N[index].float()
    # Latents see a little of their neighbours; what the edit did not touch is to stay the source's exactly.
    side = int(changed.shape[1] ** 0.5)
    inside = changed.reshape(-1, 1, side, side).repeat_interleave(2, 2).repeat_interleave(2, 3)
    return source, torch.where(inside > 0, target, source), changed, instructions


@torch.no_grad()
def _average(average: nn.Module, model: nn.Module, decay: float) -> None:
    for kept, present in zip(average.parameters(), model.parameters(), strict=True):
        kept.lerp_(present, 1 - decay)
