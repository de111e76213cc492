"""What the Attacker is told to do to a scene: how many edits, of which kind and where; often not what to
paint.

A proposal never touches a protected box, and removes nothing that the question is about. What is painted
stays the editor's choice where the content is open: that is the room in which reinforcement learning moves.
Training, curation and evaluation propose alike, through `propose`.
"""

from collections.abc import Sequence

import numpy as np

from aot_core.contracts.base import Frozen
from aot_core.contracts.scene import Box, Edit, EditKind, Sample, SceneObject
from aot_core.data import world
from aot_core.data.instructions import add_instruction, remove_instruction, replace_instruction


class ProposalError(ValueError):
    """A scene offers no place for the edits wanted."""


class Proposal(Frozen):
    """Edits wanted of the editor. Their `added` is None until somebody has read the edited image."""

    instruction: str
    """What the editor is told: the edits' sentences and, if it may see it, the question."""
    edits: tuple[Edit, ...]

    @property
    def regions(self) -> tuple[Box, ...]:
        return tuple(edit.region for edit in self.edits)


def with_question(instruction: str, question: str) -> str:
    """The instruction and the question that the edit is to mislead about; an empty question adds nothing."""
    return f"{instruction} Question: {question}" if question else instruction


def propose(
    rng: np.random.Generator,
    sample: Sample,
    *,
    edits: int,
    kinds: Sequence[EditKind] = ("add",),
    show_question: bool = True,
) -> Proposal:
    """Propose `edits` edits of random kinds, in cells of their own, around a procedural scene's question.

    A removal or replacement takes an object that the question is not about; where none is left, an object is
    added instead. Raises ProposalError where too few cells are free.
    """
    protected = sample.question.protected
    taken = {world.cell_of(thing.box): thing for thing in sample.scene.objects}
    free = [cell for cell in world.all_cells(sample.scene.width) if cell not in taken and _is_clear(cell, protected)]
    others = [thing for cell, thing in taken.items() if _is_clear(cell, protected)]
    if len(free) + len(others) < edits or (len(free) < edits and set(kinds) == {"add"}):
        raise ProposalError(
            f"scene {sample.scene.scene_id} has {len(free)} free cells for {edits} edits; ask for fewer edits or "
            "generate scenes with fewer objects"
        )
    free = [free[int(i)] for i in rng.permutation(len(free))]
    others = [others[int(i)] for i in rng.permutation(len(others))]
    wanted: list[Edit] = []
    for _ in range(edits):
        kind = kinds[int(rng.integers(len(kinds)))]
        if kind == "add" or not others:
            wanted.append(_addition(free.pop()) if free else _change("replace", others.pop()))
        else:
            wanted.append(_change(kind, others.pop()))
    sentences = " ".join(edit.instruction for edit in wanted)
    told = with_question(sentences, sample.question.text if show_question else "")
    return Proposal(instruction=told, edits=tuple(wanted))


def _addition(cell: world.Cell) -> Edit:
    return Edit(kind="add", instruction=add_instruction(None, cell), family="semantic", region=world.cell_box(cell))


def _change(kind: EditKind, thing: SceneObject) -> Edit:
    cell = world.cell_of(thing.box)
    if kind == "remove":
        told = remove_instruction(thing.attributes, cell)
    else:
        told = replace_instruction(thing.attributes, cell, None)
    return Edit(kind=kind, instruction=told, family="semantic", region=world.cell_box(cell), removed=thing)


def _is_clear(cell: world.Cell, protected: Sequence[Box]) -> bool:
    return all(world.cell_box(cell).overlap(box) == 0 for box in protected)
