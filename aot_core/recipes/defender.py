"""The recipe of `aot-tiny-vl`: `python -m aot_core.recipes aot-tiny-vl --output DIR [--seed N]`.

Three phases, each saved in the work folder when it is done, so that a broken run goes on with the phase that it was in:

1. `see`: the vision tower alone. Every visual token is one cell of the world; it learns to be the sum of the language
   model's own embeddings of that cell's colour and shape words and of a vector for its row and its column.
2. `look`: the language model, on the frozen tower, with scenes of two or three objects: where things are, what a place
   holds, and the questions asked plainly.
3. `ask`: the same with two to four objects, mostly the multiple-choice questions that the game asks, the learning rate
   falling to almost nothing.

All scenes are uncrowded (two to four objects). What the model does in crowded ones it has never been taught: that is
the fragility which the game finds and mends. Everything is drawn from one seed.
"""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from aot_core.contracts.scene import SceneObject
from aot_core.defender.loading import Model, Processor, load_model, load_processor
from aot_core.recipes.defender_lessons import Lesson, Mixture, corpus, draw_lessons
from aot_core.recipes.defender_model import build_model, build_processor, build_tokenizer
from aot_core.recipes.defender_packing import answer_loss, pack
from aot_core.tracking.protocol import Tracker
from aot_core.worlds.shapes import world

BASE_SEED = 7


@dataclass(frozen=True, kw_only=True)
class Scenes:
    """What a step's scenes are, and what is taught about them."""

    mixture: Mixture
    object_counts: tuple[int, ...]
    """Drawn from, evenly, for each scene."""
    images: float = 8
    """Scenes a step. Beside others (`LanguagePhase.crowds`) a fraction is the chance of one more."""
    lessons: int = 12
    """Lessons a scene."""
    lookalikes: bool = False
    """Whether every scene is made of three colours and three shapes, so that most objects share one with others."""


@dataclass(frozen=True, kw_only=True)
class LanguagePhase(Scenes):
    """How the language model is taught for a while."""

    name: str
    steps: int
    final_rate: float
    """What the learning rate falls to by the end, as a share of the full one (linear)."""
    full_rate: float = 1.0
    """What the learning rate begins at, as a share of the recipe's."""
    crowds: Scenes | None = None
    """Further scenes of each step: crowded ones, say, in which looking is taught and nothing is asked."""


SEE_STEPS, SEE_IMAGES = 800, 32
LOOK = LanguagePhase(
    name="look",
    steps=500,
    mixture={
        "where": 1.5, "what": 0.7,
        "plain attribute": 1, "plain existence": 2, "plain relation": 1.5, "plain count": 1,
    },
    object_counts=(2, 2, 3),
    final_rate=0.7,
)  # fmt: skip
ASK = LanguagePhase(
    name="ask",
    steps=1300,
    mixture={
        "where": 0.5,
        "plain attribute": 0.2, "plain existence": 0.7, "plain relation": 0.7, "plain count": 0.7,
        "attribute": 1, "existence": 2, "relation": 2, "count": 2,
    },
    object_counts=(2, 3, 4),
    final_rate=0.02,
)  # fmt: skip
LANGUAGE_PHASES = (LOOK, ASK)

SEE_MATRIX_RATE = 4e-3
MATRIX_RATE = 2e-3
"""Muon's learning rates for the matrices of the layers of either part (scaled to AdamW's update size). Twice or three
times as much for the language model, and it does not learn to look at all."""
WORD_RATE = 2e-4
"""AdamW's for the word embeddings: the vision tower speaks in them, so they may not run away from it."""
OTHER_RATE = 2e-3
"""AdamW's for norms and biases, and for the vision tower's convolution and merger."""


def pretrain(work: Path, seed: int, tracker: Tracker) -> Path:
    """Run the recipe; phases that stand in `work` are not run again. Returns the finished model's folder.

    Tracks, every 50 steps, each phase's `loss` and shares of right answers: `look/existence`.
    """
    folder = _phase(work / f"{seed}-see", partial(_see, seed, tracker))
    for number, phase in enumerate(LANGUAGE_PHASES, 1):
        folder = _phase(work / f"{seed}-{phase.name}", partial(teach, folder, phase, seed + number, tracker))
    return folder


def _phase(folder: Path, run: Callable[[], tuple[Model, Processor]]) -> Path:
    """Run a phase and save what it gives, unless that stands already."""
    if not folder.exists():
        model, processor = run()
        unfinished = folder.with_name(folder.name + ".unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        model.save_pretrained(unfinished)
        processor.save_pretrained(unfinished)
        unfinished.rename(folder)
    return folder


def random_scene(rng: np.random.Generator, counts: tuple[int, ...]) -> tuple[tuple[SceneObject, ...], Any]:
    """Objects, and the picture of them."""
    objects = world.random_objects(rng, int(rng.choice(counts)))
    return objects, world.render(objects, world.random_backdrop(rng))


def lookalike_scene(rng: np.random.Generator, counts: tuple[int, ...]) -> tuple[tuple[SceneObject, ...], Any]:
    """As `random_scene`, of three colours and three shapes: at most nine objects, no two alike in both."""
    colours, shapes = (rng.choice(list(words), size=3, replace=False) for words in (world.COLOURS, world.SHAPES))
    count = int(rng.choice(counts))
    names, cells = rng.permutation(len(colours) * len(shapes))[:count], rng.permutation(world.GRID**2)[:count]
    objects = tuple(
        world.place(
            rng,
            {"colour": str(colours[name // 3]), "shape": str(shapes[name % 3])},
            (int(cell) // world.GRID, int(cell) % world.GRID),
        )
        for name, cell in zip(names, cells, strict=True)
    )
    return objects, world.render(objects, world.random_backdrop(rng))


def _see(seed: int, tracker: Tracker) -> tuple[Model, Processor]:
    """Phase 1: visual tokens become sums of the language model's word vectors."""
    rng = np.random.default_rng([seed, 0])
    tokenizer = build_tokenizer(corpus(rng))
    processor, model = build_processor(tokenizer), build_model(tokenizer, seed)
    words, places = _anchors(model, tokenizer, seed)
    spread = words.var()
    optimisers = _optimisers(model.model.visual, SEE_MATRIX_RATE)
    bar = tqdm(range(SEE_STEPS), desc="see", disable=None)
    for step in bar:
        scenes = [random_scene(rng, (4,)) for _ in range(SEE_IMAGES)]
        features = visual_tokens(model, processor, [image for _, image in scenes])
        contents = torch.stack([_contents(objects) for objects, _ in scenes]).flatten(0, 1)
        target = words[contents].sum(1) + places.repeat(SEE_IMAGES, 1)
        filled = contents[:, 0] < len(world.COLOURS)
        # Most cells are empty and soon learned: the few with an object count four times as much.
        error = ((features - target) ** 2).mean(-1) / spread
        loss = (error * (1 + 3 * filled)).mean()
        loss.backward()
        _update(optimisers, step, SEE_STEPS, 0.02)
        if step % 50 == 0:
            colours = len(world.COLOURS)
            scores = features[filled] @ words.T
            guesses = scores[:, :colours].argmax(-1), colours + scores[:, colours:-1].argmax(-1)
            shares = [(guess == contents[filled, i]).float().mean().item() for i, guess in enumerate(guesses)]
            bar.set_postfix(loss=f"{loss.item():.3f}", colour=f"{shares[0]:.2f}", shape=f"{shares[1]:.2f}")
            figures = {"see/loss": loss.item(), "see/colour": shares[0], "see/shape": shares[1]}
            tracker.log_metrics(figures, step=step)
    return model, processor


def _anchors(model: Model, tokenizer: Any, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The vectors that visual tokens are made of: (colours + shapes + 1, hidden) words, the last for "nothing", and
    (grid * grid, hidden) places."""
    names = [*(f" {word}" for word in (*world.COLOURS, *world.SHAPES)), "nothing"]
    ids = [tokenizer(name).input_ids for name in names]
    assert all(len(i) == 1 for i in ids), names
    words = model.get_input_embeddings().weight.detach()[[i[0] for i in ids]].clone()
    generator = torch.Generator().manual_seed(seed)
    rows, columns = torch.randn(2, world.GRID, words.shape[1], generator=generator) * words.std()
    return words, (rows[:, None] + columns[None]).flatten(0, 1)


def _contents(objects: tuple[SceneObject, ...]) -> torch.Tensor:
    """(cells, 2): the rows in `_anchors`' words of every cell's colour and shape; an empty cell's say "nothing"
    twice."""
    nothing = len(world.COLOURS) + len(world.SHAPES)
    table = torch.full((world.GRID**2, 2), nothing)
    for thing in objects:
        row, column = world.cell_of(thing.box)
        colour = list(world.COLOURS).index(thing.attributes["colour"])
        shape = len(world.COLOURS) + world.SHAPES.index(thing.attributes["shape"])
        table[row * world.GRID + column] = torch.tensor([colour, shape])
    return table


def visual_tokens(model: Model, processor: Processor, images: list[Any]) -> torch.Tensor:
    """(images * cells, hidden): what the vision tower makes of the images."""
    inputs = processor.image_processor(images, return_tensors="pt").to(model.device)
    return torch.cat(model.get_image_features(inputs["pixel_values"], inputs["image_grid_thw"]).pooler_output)


def teach(start: Path, phase: LanguagePhase, seed: int, tracker: Tracker) -> tuple[Model, Processor]:
    """A phase of the language model: it learns to answer, on the frozen vision tower of the model in `start`."""
    model, processor = load_model(str(start)), load_processor(str(start))
    model.train()
    model.model.visual.requires_grad_(False)
    optimisers = [
        (optimiser, phase.full_rate * rate) for optimiser, rate in _optimisers(model.model.language_model, MATRIX_RATE)
    ]
    bar = tqdm(range(phase.steps), desc=phase.name, disable=None)
    for step, (images, lessons) in zip(bar, _lesson_batches(phase, seed), strict=False):
        with torch.no_grad():
            features = visual_tokens(model, processor, images)
        loss, _ = answer_loss(model, pack(processor, model, lessons, world.GRID), features)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        _update(optimisers, step, phase.steps, phase.final_rate)
        if step % 50 == 0:
            shares = probe(model, processor, phase.mixture, phase.object_counts)
            bar.set_postfix({name: f"{share:.2f}" for name, share in shares.items()})
            figures = {"loss": loss.item(), **shares}
            tracker.log_metrics({f"{phase.name}/{name}": value for name, value in figures.items()}, step=step)
    model.requires_grad_(True)
    return model.eval(), processor


def _lesson_batches(phase: LanguagePhase, seed: int) -> Iterator[tuple[list[Any], list[list[Lesson]]]]:
    rng = np.random.default_rng([seed, 1])
    while phase.crowds is None:
        # All scenes before all lessons: the order in which the shipped model's were drawn.
        scenes = [random_scene(rng, phase.object_counts) for _ in range(int(phase.images))]
        lessons = [draw_lessons(rng, objects, phase.mixture, phase.lessons) for objects, _ in scenes]
        yield [image for _, image in scenes], lessons
    while True:
        images, lessons = [], []
        for part in (phase, phase.crowds):
            whole = int(part.images)
            for _ in range(whole + (rng.random() < part.images - whole)):
                draw = lookalike_scene if part.lookalikes else random_scene
                objects, image = draw(rng, part.object_counts)
                images.append(image)
                lessons.append(draw_lessons(rng, objects, part.mixture, part.lessons))
        yield images, lessons


def _optimisers(part: nn.Module, matrix_rate: float) -> list[tuple[torch.optim.Optimizer, float]]:
    """Muon for the matrices of the layers, AdamW for the rest; each with its full rate."""
    layers: nn.ModuleList = getattr(part, "layers", None) or part.get_submodule("blocks")  # type: ignore[assignment]
    matrices = [p for p in layers.parameters() if p.ndim == 2]
    words = [p for name, p in part.named_parameters() if name.startswith("embed_tokens")]
    others = [p for p in part.parameters() if all(p is not known for known in (*matrices, *words))]
    muon = torch.optim.Muon(matrices, weight_decay=0.01, adjust_lr_fn="match_rms_adamw")
    chosen: list[tuple[torch.optim.Optimizer, float]] = [(muon, matrix_rate)]
    for parameters, rate in ((words, WORD_RATE), (others, OTHER_RATE)):
        if parameters:
            chosen.append((torch.optim.AdamW(parameters, betas=(0.9, 0.98), weight_decay=0.0), rate))
    return chosen


def _update(optimisers: list[tuple[torch.optim.Optimizer, float]], step: int, steps: int, final: float) -> None:
    """One step of every optimiser: thirty steps of warm-up, then a straight line to `final` times the full rate."""
    for optimiser, full in optimisers:
        rate = full * min(1.0, (step + 1) / 30) * (1 - (1 - final) * step / steps)
        for group in optimiser.param_groups:
            group["lr"] = rate
        optimiser.step()
        optimiser.zero_grad()


@torch.no_grad()
def probe(
    model: Model, processor: Processor, mixture: Mixture, counts: tuple[int, ...], scenes: int = 32
) -> dict[str, float]:
    """Share of lessons answered rightly, teacher-forced, by lesson name: the same held-out scenes each time."""
    rng = np.random.default_rng(10**6)
    shares = {}
    for name in mixture:
        asked: list[tuple[Any, list[Lesson]]] = []
        while len(asked) < scenes:
            objects, image = random_scene(rng, counts)
            if lessons := draw_lessons(rng, objects, {name: 1.0}, 3):
                asked.append((image, lessons))
        features = visual_tokens(model, processor, [image for image, _ in asked])
        packed = pack(processor, model, [lessons for _, lessons in asked], world.GRID)
        _, right = answer_loss(model, packed, features)
        wrong_tokens = torch.zeros(int(packed.lesson.max()) + 1).index_add(0, packed.lesson, (~right).float())
        shares[name] = (wrong_tokens == 0).float().mean().item()
    return shares
