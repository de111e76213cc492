"""An edit of a photograph, changed in one thing: where a thing stands, what it is, one more, one less.

What an editor painted of its own accord nobody reads in a photograph, so an instruction that left it open leaves it
open in the child too, until "content" names a thing.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from aot_core.contracts.attack import Change
from aot_core.contracts.scene import Edit, Sample
from aot_core.worlds.instructions import read_instruction
from aot_core.worlds.mutation import allows, one_less, replaced
from aot_core.worlds.photographs.places import PLACES
from aot_core.worlds.photographs.proposals import edit_in, is_clear, nameable, third_box
from aot_core.worlds.proposals import Proposal, Spot, with_question

_Edits = list[Edit]
_THIRDS: tuple[Spot, ...] = tuple((row, column) for row in range(3) for column in range(3))


def mutate_in_photograph(
    rng: np.random.Generator,
    sample: Sample,
    edits: Sequence[Edit],
    change: Change,
    *,
    bounds: tuple[int, int] = (1, 4),
    show_question: bool = True,
) -> Proposal | None:
    """See `worlds.protocol.World.mutate`."""
    if not allows(change, len(edits), bounds):
        return None
    changed = list(_CHANGES[change](sample, list(edits)))
    if not changed:
        return None
    wanted = changed[int(rng.integers(len(changed)))]
    sentences = " ".join(edit.instruction for edit in wanted)
    told = with_question(sentences, sample.question.text if show_question else "")
    return Proposal(instruction=told, edits=tuple(wanted))


def _moved(sample: Sample, edits: _Edits) -> Iterator[_Edits]:
    for index, edit in enumerate(edits):
        if edit.kind == "add":
            for third in _free(sample, edits):
                yield replaced(edits, index, edit_in("add", third, _size(sample), None, _named(edit)))


def _renamed(sample: Sample, edits: _Edits) -> Iterator[_Edits]:
    for index, edit in enumerate(edits):
        if edit.kind == "remove":
            continue
        for thing in _nameable(sample, edits):
            yield replaced(edits, index, edit_in(edit.kind, _third(edit), _size(sample), edit.removed, {"name": thing}))


def _one_more(sample: Sample, edits: _Edits) -> Iterator[_Edits]:
    for third in _free(sample, edits):
        for thing in _nameable(sample, edits):
            yield [*edits, edit_in("add", third, _size(sample), None, {"name": thing})]


_CHANGES: dict[Change, Callable[[Sample, _Edits], Iterator[_Edits]]] = {
    "move": _moved,
    "content": _renamed,
    "more": _one_more,
    "fewer": lambda _, edits: one_less(edits),
}


def _free(sample: Sample, edits: _Edits) -> list[Spot]:
    taken = [*sample.question.protected, *(edit.region for edit in edits)]
    return [third for third in _THIRDS if is_clear(third_box(third, _size(sample)), taken)]


def _nameable(sample: Sample, edits: _Edits) -> list[str]:
    """Neither in the photograph nor in the question, nor painted by an edit already."""
    painted = [named["name"] for edit in edits if (named := _named(edit)) is not None]
    return [thing for thing in nameable(sample.question, sample.scene.objects) if thing not in painted]


def _named(edit: Edit) -> dict[str, str] | None:
    """What the instruction names to paint; None where it leaves that open, or removes."""
    told = read_instruction(edit.instruction)[0].added
    return None if told is None else {"name": told}


def _third(edit: Edit) -> Spot:
    where = read_instruction(edit.instruction)[0].where
    assert isinstance(where, str), "photographs are told about in words"
    return divmod(PLACES.index(where), 3)


def _size(sample: Sample) -> tuple[int, int]:
    return sample.scene.width, sample.scene.height
