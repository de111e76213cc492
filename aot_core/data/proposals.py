"""What the Attacker is told to do to a scene: how many edits, of which kind and where; often not what to
paint.

A proposal never touches a protected box, and removes nothing that the question is about. What is painted
stays the editor's choice where the content is open: that is the room in which reinforcement learning moves.
Training, curation and evaluation propose alike, through `propose`.
"""

from collections.abc import Sequence

import numpy as np

from aot_core.contracts.base import Frozen
from aot_core.contracts.scene import Attributes, Box, Edit, EditKind, Sample, SceneObject
from aot_core.data import world
from aot_core.data.implantation import find_distractor, words_in_question
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
    named_share: float = 0.0,
    show_question: bool = True,
) -> Proposal:
    """Propose `edits` edits of random kinds, in cells of their own, around a procedural scene's question.

    With probability `named_share` the instruction names what to paint: a semantic distractor (it shares an attribute
    with the question's objects) that leaves the truth alone. Otherwise that is the editor's choice.

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
    objects = list(sample.scene.objects)
    words = words_in_question(sample.question.query, objects)
    wanted: list[Edit] = []
    for _ in range(edits):
        kind = kinds[int(rng.integers(len(kinds)))]
        old = others.pop() if others and (kind != "add" or not free) else None
        if old is None:
            kind = "add"
        elif kind == "add":
            kind = "replace"
        cell = world.cell_of(old.box) if old else free.pop()
        rest = [thing for thing in objects if thing is not old]
        named = None
        if kind != "remove" and named_share > 0 and rng.random() < named_share:
            named = find_distractor(rng, objects, rest, sample.question, words, "semantic")
        wanted.append(_edit(kind, cell, old, named))
        objects = rest + ([SceneObject(box=world.cell_box(cell), attributes=named)] if named else [])
    sentences = " ".join(edit.instruction for edit in wanted)
    told = with_question(sentences, sample.question.text if show_question else "")
    return Proposal(instruction=told, edits=tuple(wanted))


def _edit(kind: EditKind, cell: world.Cell, old: SceneObject | None, named: Attributes | None) -> Edit:
    if old is None:
        told = add_instruction(named, cell)
    elif kind == "remove":
        told = remove_instruction(old.attributes, cell)
    else:
        told = replace_instruction(old.attributes, cell, named)
    return Edit(kind=kind, instruction=told, family="semantic", region=world.cell_box(cell), removed=old)


def _is_clear(cell: world.Cell, protected: Sequence[Box]) -> bool:
    return all(world.cell_box(cell).overlap(box) == 0 for box in protected)
