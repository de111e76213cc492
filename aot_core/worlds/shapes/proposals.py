"""What the Attacker is told to do to a drawn scene: cells, and objects by colour and shape."""

from collections.abc import Mapping, Sequence
from itertools import product

import numpy as np

from aot_core.contracts.scene import Attributes, Box, Edit, EditKind, Query, Question, Sample, SceneObject
from aot_core.worlds.instructions import add_instruction, remove_instruction, replace_instruction
from aot_core.worlds.proposals import OPTIONS, Chooser, Factor, Proposal, ProposalError, nearness, with_question
from aot_core.worlds.shapes import world
from aot_core.worlds.truth import truth


def propose(
    rng: np.random.Generator,
    sample: Sample,
    chooser: Chooser,
    *,
    edits: int,
    kinds: Sequence[EditKind] = ("add",),
    named_share: float = 0.0,
    show_question: bool = True,
) -> Proposal:
    """Propose `edits` edits, in cells of their own, around a procedural scene's question.

    Args:
        kinds: the prior of "kind": a kind named several times weighs more; one not named is not proposed, except that
        an object is added where none is left to replace or remove, and replaced where no cell is free.
        named_share: the prior weight of saying what to paint against leaving it open.

    The prior of "place" is the number of cells, so that the prior's cells are uniform. Raises ProposalError where
    too few cells are free.
    """
    protected = [world.cell_of(box) for box in sample.question.protected]
    taken = {world.cell_of(thing.box): thing for thing in sample.scene.objects}
    cells = [cell for cell in world.all_cells(sample.scene.width) if is_clear(cell, sample.question.protected)]
    free = [cell for cell in cells if cell not in taken]
    spare = [cell for cell in cells if cell in taken]
    if len(free) + len(spare) < edits or (len(free) < edits and set(kinds) == {"add"}):
        raise ProposalError(
            f"scene {sample.scene.scene_id} has {len(free)} free cells for {edits} edits; ask for fewer edits or "
            "generate scenes with fewer objects"
        )
    objects = list(sample.scene.objects)
    wanted: list[Edit] = []
    last: dict[Factor, str | None] = {"kind": None, "place": None, "content": None}

    def decide(factor: Factor, options: Mapping[str, float]) -> str:
        last[factor] = chooser.choose(factor, options, last[factor])
        return str(last[factor])

    for _ in range(edits):
        kind = decide("kind", _kinds(kinds, bool(free), bool(spare)))
        pool = free if kind == "add" else spare
        places = [nearness(cell, protected) for cell in pool]
        place = decide("place", {name: places.count(name) for name in OPTIONS["place"] if name in places})
        cell = pool.pop(_pick(rng, [index for index, name in enumerate(places) if name == place]))
        old = taken.get(cell)
        rest = [thing for thing in objects if thing is not old]
        named = None
        if kind != "remove":
            akin = named_contents(objects, rest, sample.question)
            content = decide("content", _contents(akin, named_share))
            named = None if content == "open" else akin[content][_pick(rng, range(len(akin[content])))]
        wanted.append(edit_at(kind, cell, old, named))
        objects = rest + ([SceneObject(box=world.cell_box(cell), attributes=named)] if named else [])
    sentences = " ".join(edit.instruction for edit in wanted)
    told = with_question(sentences, sample.question.text if show_question else "")
    return Proposal(instruction=told, edits=tuple(wanted))


def named_contents(
    objects: Sequence[SceneObject], rest: Sequence[SceneObject], question: Question
) -> dict[str, list[Attributes]]:
    """What could be painted into the `rest` of a scene's `objects`, by how it is akin to the question's: nothing that
    is there already, nothing that changes the truth. An object may stand under several heads."""
    query = question.query
    words = {
        "target colour": _values(objects, query.target, "colour"),
        "target shape": _values(objects, query.target, "shape"),
        "reference colour": _values(objects, query.reference, "colour"),
        "reference shape": _values(objects, query.reference, "shape"),
    }
    akin: dict[str, list[Attributes]] = {name: [] for name in OPTIONS["content"] if name != "open"}
    present = [thing.attributes for thing in objects]
    for colour, shape in product(world.COLOURS, world.SHAPES):
        attributes = {"colour": colour, "shape": shape}
        if attributes in present or not _is_neutral(query, rest, attributes, question.answer_text):
            continue
        heads = [name for name, values in words.items() if not values.isdisjoint((colour, shape))]
        for name in heads or ["unrelated"]:
            akin[name].append(attributes)
    return {name: found for name, found in akin.items() if found}


def _is_neutral(query: Query, rest: Sequence[SceneObject], attributes: Attributes, answer: str) -> bool:
    # Where it stands cannot matter: truth looks at the places of the question's objects only.
    return truth(query, [*rest, SceneObject(box=world.cell_box((0, 0)), attributes=attributes)]) == answer


def _values(objects: Sequence[SceneObject], wanted: Attributes, attribute: str) -> set[str]:
    """The values of an attribute that the question names, or that the objects have which it names."""
    if not wanted:
        return set()
    found = {thing.attributes[attribute] for thing in objects if thing.matches(wanted)}
    return found | ({wanted[attribute]} if attribute in wanted else set())


def _kinds(kinds: Sequence[EditKind], can_add: bool, can_take: bool) -> dict[str, float]:
    allowed = {"add": can_add, "remove": can_take, "replace": can_take}
    weights = {kind: float(kinds.count(kind)) for kind in OPTIONS["kind"] if kind in kinds and allowed[kind]}
    return weights or {"add" if can_add else "replace": 1.0}


def _contents(akin: Mapping[str, object], named_share: float) -> dict[str, float]:
    weights = {name: named_share / len(akin) for name in akin} if named_share > 0 else {}
    if named_share < 1 or not weights:
        weights = {"open": 1 - named_share if weights else 1.0, **weights}
    return weights


def _pick(rng: np.random.Generator, items: Sequence[int]) -> int:
    return int(items[int(rng.integers(len(items)))])


def edit_at(kind: str, cell: world.Cell, old: SceneObject | None, named: Attributes | None) -> Edit:
    """The edit of a cell, told in the grammar: of the object `old` that stands there, or an addition where it is None.
    Without `named` the editor chooses what to paint."""
    if old is None:
        return _wanted("add", add_instruction(named, cell), cell, None)
    if kind == "remove":
        return _wanted("remove", remove_instruction(old.attributes, cell), cell, old)
    return _wanted("replace", replace_instruction(old.attributes, cell, named), cell, old)


def _wanted(kind: EditKind, told: str, cell: world.Cell, old: SceneObject | None) -> Edit:
    return Edit(kind=kind, instruction=told, family="semantic", region=world.cell_box(cell), removed=old)


def is_clear(cell: world.Cell, protected: Sequence[Box]) -> bool:
    """Whether a cell touches none of the boxes."""
    return all(world.cell_box(cell).overlap(box) == 0 for box in protected)
