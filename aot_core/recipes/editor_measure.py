"""What the tiny editor can do, measured on scenes it was not trained on: does it do what it is told, and only
that?

A parser reads the edited pixels. An edit counts as done when the parser finds the named object in its cell
(any object where the content was open, none after a removal). What was not to change is measured by localized
SSIM on the boxes of all untouched objects, with a perfect edit's SSIM as the ceiling.
"""

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image

from aot_core.attacker.tiny_edit import TinyEditPipeline, images_to_pixels, pixels_to_images
from aot_core.contracts.base import Frozen
from aot_core.contracts.scene import Box
from aot_core.recipes.editor_pairs import Pair, PairRecipe, draw_pair, tell
from aot_core.worlds.instructions import Told, read_instruction
from aot_core.worlds.shapes import world
from aot_core.worlds.shapes.parser import ParsedObject, parse_worlds
from aot_core.worlds.similarity import localized_ssim_batch


class EditorSkills(Frozen):
    pairs: int
    edits: int
    add: float
    """Named additions: share in which the parser reads that colour and shape in that cell."""
    add_open: float
    """Open additions: share in which the parser reads an object in the cell."""
    remove: float
    replace: float
    replace_open: float
    all_edits: float
    ssim: float
    """Mean localized SSIM on the untouched objects, source against edit."""
    ssim_above_90: float
    """Share of pairs with localized SSIM >= 0.9."""
    ssim_ceiling: float
    """Mean localized SSIM of the perfect edits."""
    reconstruction_ssim: float
    """Mean localized SSIM of the autoencoder's reconstruction on all objects."""
    kinds_painted: int
    """Different names read among the open additions; the seen palette has 36."""

    def rows(self) -> list[tuple[str, str]]:
        figures = self.model_dump(exclude={"pairs", "edits"})
        return [(name.replace("_", " "), f"{value:.3f}".removesuffix(".000")) for name, value in figures.items()]


def measure(pipeline: TinyEditPipeline, pairs: int, seed: int, steps: int = 8) -> EditorSkills:
    """Edit held-out pairs and read the results."""
    rng = np.random.default_rng(seed)
    recipe = PairRecipe(question_share=0.0)
    drawn = [draw_pair(rng, recipe) for _ in range(pairs)]
    told = [_tell(rng, pair) for pair in drawn]
    cleans, perfect = map(list, zip(*(pair.images() for pair in drawn), strict=True))
    edited = run(pipeline, cleans, told, seed, steps)
    done: dict[str, list[bool]] = {"add": [], "add_open": [], "remove": [], "replace": [], "replace_open": []}
    painted: set[str] = set()
    for text, parsed in zip(told, parse_worlds(edited), strict=True):
        for sentence in read_instruction(text):
            seen = _in_cell(parsed, sentence)
            name = sentence.kind + ("_open" if sentence.kind != "remove" and sentence.added is None else "")
            done[name].append(_is_done(sentence, seen))
            if name == "add_open" and seen:
                painted.add(seen)
    boxes = [_untouched(pair) for pair in drawn]
    ssims = localized_ssim_batch(cleans, edited, boxes)
    objects = [[thing.box for thing in pair.clean] for pair in drawn]
    return EditorSkills(
        pairs=pairs,
        edits=sum(map(len, done.values())),
        **{name: float(np.mean(flags)) if flags else 0.0 for name, flags in done.items()},  # pyright: ignore
        all_edits=float(np.mean([flag for flags in done.values() for flag in flags])),
        ssim=float(np.mean(ssims)),
        ssim_above_90=float(np.mean(np.array(ssims) >= 0.9)),
        ssim_ceiling=float(np.mean(localized_ssim_batch(cleans, perfect, boxes))),
        reconstruction_ssim=float(np.mean(localized_ssim_batch(cleans, reconstruct(pipeline, cleans), objects))),
        kinds_painted=len(painted),
    )


def run(
    pipeline: TinyEditPipeline, images: Sequence[Image.Image], told: Sequence[str], seed: int, steps: int = 8
) -> list[Image.Image]:
    """Edit many images in batches, without progress bars."""
    pipeline.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(seed)
    edited: list[Image.Image] = []
    for first in range(0, len(images), 64):
        batch = slice(first, first + 64)
        edited += pipeline(images[batch], told[batch], steps, generator).images  # pyright: ignore
    return edited


@torch.no_grad()
def reconstruct(pipeline: TinyEditPipeline, images: Sequence[Image.Image]) -> list[Image.Image]:
    """What the autoencoder makes of the images."""
    pixels = images_to_pixels(images)
    return [
        picture
        for chunk in pixels.split(64)
        for picture in pixels_to_images(pipeline.vae.decode(pipeline.vae.encode(chunk)))
    ]


def contact_sheet(pipeline: TinyEditPipeline, seed: int, rows: int = 8, columns: int = 4, zoom: int = 2) -> Image.Image:
    """Source, edit and perfect edit, three in a row, `rows` x `columns` pairs."""
    rng = np.random.default_rng(seed)
    drawn = [draw_pair(rng, PairRecipe(question_share=0.0)) for _ in range(rows * columns)]
    told = [_tell(rng, pair) for pair in drawn]
    cleans, perfect = map(list, zip(*(pair.images() for pair in drawn), strict=True))
    edited = run(pipeline, cleans, told, seed)
    side = world.SIZE * zoom
    sheet = Image.new("RGB", (columns * (3 * side + 16), rows * (side + 8)), "white")
    for index, triple in enumerate(zip(cleans, edited, perfect, strict=True)):
        row, column = divmod(index, columns)
        for place, picture in enumerate(triple):
            large = picture.resize((side, side), Image.Resampling.NEAREST)
            sheet.paste(large, (column * (3 * side + 16) + place * side, row * (side + 8)))
    return sheet


def _tell(rng: np.random.Generator, pair: Pair) -> str:
    return tell(rng, pair, PairRecipe(question_share=0.0))


def _in_cell(parsed: Sequence[ParsedObject], sentence: Told) -> str:
    """The name of the object that the parser found in the sentence's cell; empty if none."""
    return next((p.object.name for p in parsed if world.cell_of(p.object.box) == sentence.where), "")


def _is_done(sentence: Told, seen: str) -> bool:
    if sentence.kind == "remove":
        return not seen
    if sentence.added is None:
        return bool(seen) and seen != sentence.removed
    return seen == sentence.added


def _untouched(pair: Pair) -> list[Box]:
    cells = {change.cell for change in pair.changes}
    return [thing.box for thing in pair.clean if world.cell_of(thing.box) not in cells]
