"""The truth of a question, derived from the objects in the scene, with margins.

The one place that decides what is right. It is asked when a question is made, after every edit, and by the tests;
where a reasonable person could dispute the answer it gives None, and the question or the edit is not used.
"""

from collections.abc import Sequence

from aot_core.contracts.scene import Query, SceneObject

DOMINANCE = 2.0
"""A relation is stated along the axis on which the centres differ at least this many times as much."""


def truth(query: Query, objects: Sequence[SceneObject]) -> str | None:
    """The right answer in words ("yes", "left", "2", "red"), or None where it is disputable."""
    targets = [thing for thing in objects if thing.matches(query.target)]
    if query.kind == "existence":
        return "yes" if targets else "no"
    if query.kind == "count":
        return str(len(targets))
    if len(targets) != 1:
        return None
    if query.kind == "attribute":
        return targets[0].attributes.get(query.asked)
    references = [thing for thing in objects if thing.matches(query.reference)]
    if len(references) != 1 or references[0] == targets[0]:
        return None
    return relation(targets[0], references[0])


def relation(target: SceneObject, reference: SceneObject) -> str | None:
    """Where the target lies, seen from the reference: left, right, above, below; None where it is disputable.

    The centres must differ along one axis at least `DOMINANCE` times as much as along the other, and the boxes
    must not overlap along that axis.
    """
    (tx, ty), (rx, ry) = target.box.centre, reference.box.centre
    dx, dy = tx - rx, ty - ry
    if abs(dx) >= DOMINANCE * abs(dy) and abs(dx) >= (target.box.width + reference.box.width) / 2:
        return "left" if dx < 0 else "right"
    if abs(dy) >= DOMINANCE * abs(dx) and abs(dy) >= (target.box.height + reference.box.height) / 2:
        return "above" if dy < 0 else "below"
    return None
