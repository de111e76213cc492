"""What the tiny editor is pretrained on: pairs of procedural scenes, drawn, with the edits between them.

A scene is a list of objects; an edited list drawn again is a perfect edit. A pair read backwards is a pair
too (what was added is removed). How the edit is told is chosen anew each time: a sentence an edit, the
content named or left open, sometimes a question after it (which the flow must learn to live with; later it
may use it).
"""

from typing import NamedTuple

import numpy as np
from PIL import Image

from aot_core.contracts.base import Frozen
from aot_core.contracts.scene import Attributes, Query, QuestionKind, SceneObject
from aot_core.worlds.instructions import add_instruction, remove_instruction, replace_instruction
from aot_core.worlds.proposals import with_question
from aot_core.worlds.shapes import world
from aot_core.worlds.shapes.questions import ask_world

KINDS: tuple[QuestionKind, ...] = ("attribute", "existence", "relation", "count")


class PairRecipe(Frozen):
    max_objects: int = 6
    max_edits: int = 3
    open_share: float = 0.4
    """How often what is added is left to the editor."""
    question_share: float = 0.4
    """How often a question follows."""
    semantic_share: float = 0.0
    """How often what is added is a semantic distractor of the question: it shares an attribute with what is asked for
    and leaves the truth alone."""


class Change(NamedTuple):
    """One edit: what leaves the cell, what enters it; one of the two may be None."""

    cell: world.Cell
    removed: Attributes | None
    added: Attributes | None


class Pair(NamedTuple):
    clean: tuple[SceneObject, ...]
    edited: tuple[SceneObject, ...]
    backdrop: world.Backdrop
    changes: tuple[Change, ...]
    question: str

    def images(self) -> tuple[Image.Image, Image.Image]:
        return world.render(self.clean, self.backdrop), world.render(self.edited, self.backdrop)


def draw_pair(rng: np.random.Generator, recipe: PairRecipe) -> Pair:
    """A scene of 1..max_objects objects and 1..max_edits changes of it, each in a cell of its own."""
    clean = world.random_objects(rng, int(rng.integers(1, recipe.max_objects + 1)))
    by_cell = {world.cell_of(thing.box): thing for thing in clean}
    free = [cell for cell in world.all_cells() if cell not in by_cell]
    rng.shuffle(free)
    taken = list(by_cell)
    rng.shuffle(taken)
    edited = dict(by_cell)
    question = ask_world(rng, KINDS[int(rng.integers(4))], clean)
    changes = []
    for _ in range(int(rng.integers(1, recipe.max_edits + 1))):
        kind = rng.choice(["add", "remove", "replace"], p=[0.5, 0.2, 0.3])
        cell = free.pop() if kind == "add" or not taken else taken.pop()
        cell = (int(cell[0]), int(cell[1]))
        old = edited.pop(cell, None)
        new = None
        if kind != "remove" or old is None:
            semantic = question is not None and rng.random() < recipe.semantic_share
            attributes = distractor(rng, question.query) if semantic and question else world.random_attributes(rng)
            while old is not None and attributes == old.attributes:
                attributes = world.random_attributes(rng)
            new = edited[cell] = world.place(rng, attributes, cell)
        changes.append(Change(cell, old.attributes if old else None, new.attributes if new else None))
    text = question.text if question else ""
    return Pair(clean, tuple(edited.values()), world.random_backdrop(rng), tuple(changes), text)


def distractor(rng: np.random.Generator, query: Query) -> Attributes:
    """What is near to what is asked for, and not it: one attribute of two shared; another value of a single one."""
    while True:
        attributes = world.random_attributes(rng)
        shared = sum(attributes[axis] == word for axis, word in query.target.items())
        if shared == len(query.target) - 1 and attributes != query.reference:
            return attributes


def tell(rng: np.random.Generator, pair: Pair, recipe: PairRecipe, backwards: bool = False) -> str:
    """The pair's edits in words; `backwards`: from the edited to the clean scene."""
    sentences = []
    for index in rng.permutation(len(pair.changes)):
        cell, old, new = pair.changes[int(index)]
        if backwards:
            old, new = new, old
        said = None if rng.random() < recipe.open_share else new
        if old is None:
            sentences.append(add_instruction(said, cell))
        elif new is None:
            sentences.append(remove_instruction(old, cell))
        else:
            sentences.append(replace_instruction(old, cell, said))
    asked = pair.question if rng.random() < recipe.question_share else ""
    return with_question(" ".join(sentences), asked)


def changed_cells(pair: Pair) -> np.ndarray:
    """(cells,) of bool, row by row: where the two images differ."""
    changed = np.zeros(world.GRID**2, dtype=bool)
    for change in pair.changes:
        changed[change.cell[0] * world.GRID + change.cell[1]] = True
    return changed
