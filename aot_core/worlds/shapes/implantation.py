"""Adversarial implantation into procedural scenes: edits that mislead and leave the truth alone.

    picture + question ----implant_world----> edited picture + edits, or rejected for a reason

Families, told by the question's objects and the words it asks with:
- semantic: the distractor shares the colour or the shape of one of them, never both;
- irrelevant: it shares neither;
- unseen: as semantic, but its other attribute is one that no training stage ever draws.
By `implantation.near`, distractors that are not irrelevant are put beside the question's objects.
Whatever is changed, the truth is derived again from the edited objects and must be the answer.
"""

from collections.abc import Sequence
from functools import cache
from itertools import product

import numpy as np

from aot_core.contracts.prepare_data import ImplantationSettings
from aot_core.contracts.scene import Attributes, Box, DistractorFamily, Edit, EditKind, Query, Question, SceneObject
from aot_core.worlds.extension import Rejection
from aot_core.worlds.implantation import Implanted, in_neighbourhood
from aot_core.worlds.instructions import add_instruction, remove_instruction, replace_instruction
from aot_core.worlds.shapes import world
from aot_core.worlds.shapes.source import DrawnPicture, redraw
from aot_core.worlds.sources import Picture
from aot_core.worlds.truth import truth


def implant_world(
    rng: np.random.Generator,
    picture: DrawnPicture,
    question: Question,
    family: DistractorFamily,
    kinds: tuple[EditKind, ...],
    settings: ImplantationSettings,
) -> Implanted | Rejection:
    """Carry out edits of the given kinds, each in a cell of its own, drawn perfectly.

    A removal or replacement that finds no fitting object becomes an addition. Rejected: "no_room" (no free cell),
    "no_distractor" (nothing of the family leaves the truth alone), "truth_changed".
    """
    objects = list(picture.scene.objects)
    words = words_in_question(question.query, objects)
    used: set[world.Cell] = set()
    edits: list[Edit] = []
    for kind in kinds:
        old = None if kind == "add" else _spare(rng, objects, question, words, family, used)
        if old is not None:
            cell = world.cell_of(old.box)
        else:
            near = question.protected if in_neighbourhood(rng, family, settings) else ()
            cell = _free_cell(rng, picture, objects, used, near)
        if cell is None:
            return Rejection("no_room")
        rest = [thing for thing in objects if thing is not old]
        new: SceneObject | None = None
        if old is None or kind == "replace":
            attributes = find_distractor(rng, objects, rest, question, words, family)
            if attributes is None:
                return Rejection("no_distractor")
            new = world.place(rng, attributes, cell)
        is_open = bool(rng.random() < settings.open_instructions)
        edits.append(
            Edit(
                kind=kind if old else "add",
                instruction=_instruction(old, new, cell, is_open),
                family=family,
                region=world.cell_box(cell),
                removed=old,
                added=new,
            )
        )
        objects = rest + ([new] if new else [])
        used.add(cell)
    edited = redraw(picture, tuple(objects))
    if edited.settled(question.query) != question.answer_text:
        return Rejection("truth_changed")
    return Implanted(edited, tuple(edits))


def shares(attributes: Attributes, words: frozenset[str]) -> bool:
    """Whether an object has an attribute that the question is about."""
    return not words.isdisjoint(attributes.values())


def words_in_question(query: Query, objects: list[SceneObject]) -> frozenset[str]:
    """The words the question asks with, and those of the objects that it is about."""
    words = {*query.target.values(), *query.reference.values()}
    for thing in objects:
        if thing.matches(query.target) or (query.reference and thing.matches(query.reference)):
            words.update(thing.attributes.values())
    return frozenset(words)


@cache
def _palette(family: DistractorFamily) -> tuple[dict[str, str], ...]:
    """Every colour and shape that a distractor of the family could have, whatever the question."""
    seen = [{"colour": c, "shape": s} for c, s in product(world.COLOURS, world.SHAPES)]
    novel = [{"colour": c, "shape": s} for c, s in product(world.UNSEEN_COLOURS, world.SHAPES)]
    novel += [{"colour": c, "shape": s} for c, s in product(world.COLOURS, world.UNSEEN_SHAPES)]
    return tuple(novel if family == "unseen" else seen)


def find_distractor(
    rng: np.random.Generator,
    objects: list[SceneObject],
    rest: list[SceneObject],
    question: Question,
    words: frozenset[str],
    family: DistractorFamily,
) -> Attributes | None:
    """What to add to the `rest` of the scene's `objects`: of the family, no second copy of anything, truth kept."""
    palette = _palette(family)
    present = [thing.attributes for thing in objects]
    for index in rng.permutation(len(palette)):
        attributes = palette[int(index)]
        if shares(attributes, words) != (family != "irrelevant") or attributes in present:
            continue
        # Where it stands cannot matter: truth looks at the places of the question's objects only.
        trial = SceneObject(box=world.cell_box((0, 0)), attributes=attributes)
        if truth(question.query, [*rest, trial]) == question.answer_text:
            return dict(attributes)
    return None


def _spare(
    rng: np.random.Generator,
    objects: list[SceneObject],
    question: Question,
    words: frozenset[str],
    family: DistractorFamily,
    used: set[world.Cell],
) -> SceneObject | None:
    """An object of the family that the question is not about and that the truth does not need."""
    spare = [
        thing
        for thing in objects
        if thing.box not in question.protected
        and world.cell_of(thing.box) not in used
        and shares(thing.attributes, words) == (family != "irrelevant")
        and truth(question.query, [other for other in objects if other is not thing]) == question.answer_text
    ]
    return spare[int(rng.integers(len(spare)))] if spare else None


def _free_cell(
    rng: np.random.Generator,
    picture: Picture,
    objects: list[SceneObject],
    used: set[world.Cell],
    near: Sequence[Box],
) -> world.Cell | None:
    """A free cell, beside one of the boxes `near` where there is such a one."""
    taken = used | {world.cell_of(thing.box) for thing in objects}
    free = [cell for cell in world.all_cells(picture.scene.width) if cell not in taken]
    beside = [cell for cell in free if any(_beside(cell, world.cell_of(box)) for box in near)]
    chosen = beside or free
    return chosen[int(rng.integers(len(chosen)))] if chosen else None


def _beside(one: world.Cell, other: world.Cell) -> bool:
    return max(abs(one[0] - other[0]), abs(one[1] - other[1])) == 1


def _instruction(old: SceneObject | None, new: SceneObject | None, cell: world.Cell, is_open: bool) -> str:
    told = None if is_open or new is None else new.attributes
    if old is None:
        return add_instruction(told, cell)
    if new is None:
        return remove_instruction(old.attributes, cell)
    return replace_instruction(old.attributes, cell, told)
