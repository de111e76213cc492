"""What the Attacker is told to do to a scene: how many edits, of which kind, where, and what to paint.

A proposal never touches a protected box, and removes nothing that the question is about. Every decision is put to a
`Chooser` in words ("kind": add, replace or remove; "place": near, aligned or far; "content": how the new object
is akin to the question's), with those options alone that the scene allows and that leave the truth as it is: so
whoever decides, a fixed prior or a policy that learns, cannot propose an unfair edit. Training, curation and
evaluation propose alike, through the world's `propose` (`shapes.proposals`, `photographs.proposals`).
"""

from collections.abc import Mapping, Sequence
from typing import Literal, Protocol, get_args

from aot_core.contracts.base import Frozen
from aot_core.contracts.scene import Box, Edit, EditKind

Spot = tuple[int, int]
"""Row and column of what a world's pictures are divided into: cells, or thirds of a photograph."""
Factor = Literal["kind", "place", "content"]
Place = Literal["near", "aligned", "far"]
"""Against the nearest protected box: a neighbouring cell, another one of its row or column, or any other."""
Content = Literal["open", "target colour", "target shape", "reference colour", "reference shape", "unrelated"]
"""What a new object shares with those that the question is about; what is "open" the editor chooses, told only
the place."""
OPTIONS: dict[Factor, tuple[str, ...]] = {
    "kind": get_args(EditKind),
    "place": get_args(Place),
    "content": get_args(Content),
}
"""Every option of every decision, in the order of the policy's tables."""


class Chooser(Protocol):
    """Decides what a proposal leaves open."""

    def choose(self, factor: Factor, options: Mapping[str, float], last: str | None) -> str:
        """One of `options`, which holds a positive prior weight by option; `last` is what was decided on this factor
        for the edit before, None at the first."""
        ...


class ProposalError(ValueError):
    """A scene offers no place for the edits wanted."""


class Proposal(Frozen):
    """Edits requested of the editor. Their `added` is None until the edited image has been read."""

    instruction: str
    """What the editor is told: the edits' sentences and, if it may see it, the question."""
    edits: tuple[Edit, ...]

    @property
    def regions(self) -> tuple[Box, ...]:
        return tuple(edit.region for edit in self.edits)


def with_question(instruction: str, question: str) -> str:
    """The instruction and the question that the edit is to mislead about; an empty question adds nothing."""
    return f"{instruction} Question: {question}" if question else instruction


def nearness(spot: Spot, protected: Sequence[Spot]) -> Place:
    """The place of a spot (row, column) against the protected ones."""
    away = [(abs(spot[0] - row), abs(spot[1] - column)) for row, column in protected]
    if any(max(dy, dx) <= 1 for dy, dx in away):
        return "near"
    return "aligned" if any(min(dy, dx) == 0 for dy, dx in away) else "far"
