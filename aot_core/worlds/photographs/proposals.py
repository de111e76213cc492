"""What the Attacker is told to do to a photograph: kind, thing and place in words, for any general editor.

    Add a cup in the lower left.   Remove the dog in the upper right.   Replace the vase in the centre with a bottle.

The grammar is that of `worlds.instructions`, the places those of `worlds.photographs.places`. Decisions are put to a
`Chooser` (`worlds.proposals`), limited to the options that a photograph has: its thirds are its spots, so "far" is two
steps away on both axes. A proposal names no thing that the question or its options name. What the editor paints of its
own accord nobody reads here: truth holds by the regions, or by a judge's word.
"""

import re
from collections.abc import Mapping, Sequence

import numpy as np

from aot_core.contracts.scene import Attributes, Box, Edit, EditKind, Question, Sample, SceneObject
from aot_core.worlds.instructions import add_instruction, remove_instruction, replace_instruction
from aot_core.worlds.photographs.places import PLACES, with_place
from aot_core.worlds.proposals import OPTIONS, Chooser, Factor, Proposal, ProposalError, Spot, nearness, with_question

THINGS = (
    *("cup", "bottle", "bowl", "book", "clock", "vase", "chair", "lamp", "plant in a pot", "backpack", "umbrella"),
    *("suitcase", "hat", "shoe", "ball", "kite", "bicycle", "bench", "bird", "cat", "dog", "apple", "banana"),
    *("orange", "cake", "pizza", "phone", "laptop", "teddy bear", "scissors", "basket", "box", "candle", "flag"),
)
"""Everyday things that an instruction may name."""


def propose_in_photograph(
    rng: np.random.Generator,
    sample: Sample,
    chooser: Chooser,
    *,
    edits: int,
    kinds: Sequence[EditKind] = ("add",),
    named_share: float = 0.0,
    show_question: bool = True,
) -> Proposal:
    """Propose `edits` edits in places of their own; arguments as of `worlds.protocol.World.propose`.

    Raises ProposalError where too few thirds of the picture are clear of the protected boxes.
    """
    question, size = sample.question, (sample.scene.width, sample.scene.height)
    protected = [_third_of(box, size) for box in question.protected]
    spare = {
        _third(place): thing
        for thing in (with_place(thing, size) for thing in sample.scene.objects)
        if (place := thing.attributes.get("place")) and is_clear(thing.box, question.protected)
    }
    thirds = [(row, column) for row in range(3) for column in range(3)]
    free = [third for third in thirds if is_clear(third_box(third, size), question.protected)]
    wanted: list[Edit] = []
    last: dict[Factor, str | None] = {"kind": None, "place": None, "content": None}

    def decide(factor: Factor, options: Mapping[str, float]) -> str:
        last[factor] = chooser.choose(factor, options, last[factor])
        return str(last[factor])

    for _ in range(edits):
        weights = _kinds(kinds, bool(free), bool(spare))
        if not weights:
            raise ProposalError(
                f"scene {sample.scene.scene_id} has {len(wanted)} places for {edits} edits that no protected box "
                "reaches into; ask for fewer edits"
            )
        kind = decide("kind", weights)
        pool = free if kind == "add" else list(spare)
        near = [nearness(third, protected) for third in pool]
        place = decide("place", {name: near.count(name) for name in OPTIONS["place"] if name in near})
        third = pool[_pick(rng, [index for index, name in enumerate(near) if name == place])]
        old = spare.get(third) if kind != "add" else None
        named = None
        if kind != "remove":
            things = nameable(question, sample.scene.objects)
            named_weights = {"open": 1 - named_share, "unrelated": named_share if things else 0.0}
            content = decide("content", {name: weight for name, weight in named_weights.items() if weight > 0})
            named = {"name": things[int(rng.integers(len(things)))]} if content == "unrelated" else None
        wanted.append(edit_in(kind, third, size, old, named))
        # Two edits never work on the same pixels; a thing may reach into the thirds beside its own.
        done = [wanted[-1].region]
        free = [other for other in free if is_clear(third_box(other, size), done)]
        spare = {other: thing for other, thing in spare.items() if is_clear(thing.box, done)}
    sentences = " ".join(edit.instruction for edit in wanted)
    told = with_question(sentences, question.text if show_question else "")
    return Proposal(instruction=told, edits=tuple(wanted))


def nameable(question: Question, objects: Sequence[SceneObject]) -> list[str]:
    """The things that may be named: neither in the picture nor in the question or its options, whole or in part."""
    said = " ".join((question.text, *question.options, *(thing.attributes.get("name", "") for thing in objects)))
    words = {word.removesuffix("s") for word in re.findall(r"[a-z]+", said.lower())}
    return [thing for thing in THINGS if words.isdisjoint(word.removesuffix("s") for word in thing.split())]


def edit_in(kind: str, third: Spot, size: tuple[int, int], old: SceneObject | None, named: Attributes | None) -> Edit:
    """The edit of a third of a photograph, told in the grammar: of the thing `old` that is there, or an addition where
    it is None. Without `named` the editor chooses what to paint."""
    where = PLACES[third[0] * 3 + third[1]]
    if old is None:
        return _wanted("add", add_instruction(named, where), third_box(third, size), None)
    known = {"name": old.attributes.get("name", old.name)}
    if kind == "remove":
        return _wanted("remove", remove_instruction(known, where), old.box, old)
    return _wanted("replace", replace_instruction(known, where, named), old.box, old)


def _wanted(kind: EditKind, told: str, region: Box, old: SceneObject | None) -> Edit:
    return Edit(kind=kind, instruction=told, family="semantic", region=region, removed=old)


def _kinds(kinds: Sequence[EditKind], can_add: bool, can_take: bool) -> dict[str, float]:
    allowed = {"add": can_add, "remove": can_take, "replace": can_take}
    weights = {kind: float(kinds.count(kind)) for kind in OPTIONS["kind"] if kind in kinds and allowed[kind]}
    return weights or ({"add": 1.0} if can_add else {})


def _third(place: str) -> Spot:
    return divmod(PLACES.index(place), 3)


def _third_of(box: Box, size: tuple[int, int]) -> Spot:
    column, row = (min(2, int(3 * along / side)) for along, side in zip(box.centre, size, strict=True))
    return row, column


def third_box(third: Spot, size: tuple[int, int]) -> Box:
    """A third's box in whole pixels, so that thirds do not overlap."""
    (top, bottom), (left, right) = (
        (round(number * side / 3), round((number + 1) * side / 3))
        for number, side in zip(third, (size[1], size[0]), strict=True)
    )
    return Box(x=left, y=top, width=right - left, height=bottom - top)


def is_clear(box: Box, protected: Sequence[Box]) -> bool:
    """Whether a box touches none of the others."""
    return all(box.overlap(other) == 0 for other in protected)


def _pick(rng: np.random.Generator, items: Sequence[int]) -> int:
    return int(items[int(rng.integers(len(items)))])
