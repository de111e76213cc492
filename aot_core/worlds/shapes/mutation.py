"""An edit of a drawn scene, changed in one thing: where an object stands, its colour or shape, one more, one less.

    edits as read --> plans (kind, cell, what was there, what was painted) --> every changed list --> a fair one by lot

Fair means what it means in `shapes.proposals`: no protected box is touched, no cell is used twice, nothing is painted
that is there already, and the truth stays as it is, whatever the parent was.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import product
from typing import NamedTuple

import numpy as np

from aot_core.contracts.attack import Change
from aot_core.contracts.scene import Attributes, Edit, EditKind, Sample, SceneObject
from aot_core.worlds.mutation import allows, one_less, replaced
from aot_core.worlds.proposals import Proposal, with_question
from aot_core.worlds.shapes import world
from aot_core.worlds.shapes.proposals import edit_at, is_clear
from aot_core.worlds.truth import truth


class _Plan(NamedTuple):
    """One edit."""

    kind: EditKind
    cell: world.Cell
    old: SceneObject | None
    named: Attributes | None
    """What is painted; None where nothing is, or where the editor chooses."""


_Plans = list[_Plan]


def mutate(
    rng: np.random.Generator,
    sample: Sample,
    edits: Sequence[Edit],
    change: Change,
    *,
    bounds: tuple[int, int] = (1, 4),
    show_question: bool = True,
) -> Proposal | None:
    """See `worlds.protocol.World.mutate`."""
    plans = [
        _Plan(edit.kind, world.cell_of(edit.region), edit.removed, edit.added.attributes if edit.added else None)
        for edit in edits
    ]
    if not allows(change, len(plans), bounds):
        return None
    changed = list(_CHANGES[change](sample, plans))
    for index in rng.permutation(len(changed)):
        wanted = changed[int(index)]
        if _keeps_truth(sample, wanted):
            told = [edit_at(*plan) for plan in wanted]
            question = sample.question.text if show_question else ""
            sentences = " ".join(edit.instruction for edit in told)
            return Proposal(instruction=with_question(sentences, question), edits=tuple(told))
    return None


def _moved(sample: Sample, plans: _Plans) -> Iterator[_Plans]:
    """Added objects alone: a replacement stands where the old object stood."""
    for index, plan in enumerate(plans):
        if plan.kind == "add":
            for cell in _free(sample, plans):
                yield replaced(plans, index, plan._replace(cell=cell))


def _repainted(sample: Sample, plans: _Plans) -> Iterator[_Plans]:
    """Another colour or another shape, never both."""
    there = _there(sample, plans)
    for index, plan in enumerate(plans):
        if plan.named is None:
            continue
        for attribute, values in (("colour", world.COLOURS), ("shape", world.SHAPES)):
            for value in values:
                named = {**plan.named, attribute: value}
                if named not in there:
                    yield replaced(plans, index, plan._replace(named=named))


def _one_more(sample: Sample, plans: _Plans) -> Iterator[_Plans]:
    there = _there(sample, plans)
    for cell, colour, shape in product(_free(sample, plans), world.COLOURS, world.SHAPES):
        named = {"colour": colour, "shape": shape}
        if named not in there:
            yield [*plans, _Plan("add", cell, None, named)]


_CHANGES: dict[Change, Callable[[Sample, _Plans], Iterator[_Plans]]] = {
    "move": _moved,
    "content": _repainted,
    "more": _one_more,
    "fewer": lambda _, plans: one_less(plans),
}


def _free(sample: Sample, plans: _Plans) -> list[world.Cell]:
    taken = {world.cell_of(thing.box) for thing in sample.scene.objects} | {plan.cell for plan in plans}
    cells = world.all_cells(sample.scene.width)
    return [cell for cell in cells if cell not in taken and is_clear(cell, sample.question.protected)]


def _there(sample: Sample, plans: _Plans) -> list[Attributes]:
    """What may not be painted once more."""
    painted = [plan.named for plan in plans if plan.named is not None]
    return [*(thing.attributes for thing in sample.scene.objects), *painted]


def _keeps_truth(sample: Sample, plans: _Plans) -> bool:
    edited = {plan.cell for plan in plans}
    kept = [thing for thing in sample.scene.objects if world.cell_of(thing.box) not in edited]
    new = [SceneObject(box=world.cell_box(plan.cell), attributes=plan.named) for plan in plans if plan.named]
    return truth(sample.question.query, [*kept, *new]) == sample.question.answer_text
