"""What an editor is told: a small grammar, written here and read back here.

    Add a red ring at row 2, column 3.              Add an object at row 2, column 3.
    Remove the blue square at row 1, column 2.
    Replace the blue square at row 1, column 2 with a red ring.    ... with another object.

Rows and columns count from 1. In photographs a place is said in words: `Add a cup in the lower left.` Several
edits are sentences joined by a space.
"""

import re
from typing import NamedTuple

from aot_core.contracts.scene import Attributes, EditKind
from aot_core.worlds.grammar import with_article

Cell = tuple[int, int]
Where = Cell | str
"""A cell (row, column from 0), or a place in words: "lower left", "middle"."""


class Told(NamedTuple):
    """One sentence, understood. Names are as they were said ("red ring"); None where the editor may choose."""

    kind: EditKind
    where: Where
    removed: str | None = None
    added: str | None = None


def add_instruction(attributes: Attributes | None, where: Where) -> str:
    """Tell to add an object; without attributes what it is stays the editor's choice."""
    return f"Add {_a(attributes) if attributes else 'an object'} {_at(where)}."


def remove_instruction(attributes: Attributes, where: Where) -> str:
    """Tell to remove an object."""
    return f"Remove the {_name(attributes)} {_at(where)}."


def replace_instruction(old: Attributes, where: Where, new: Attributes | None) -> str:
    """Tell to put another object in an object's place; without `new` which one is the editor's choice."""
    return f"Replace the {_name(old)} {_at(where)} with {_a(new) if new else 'another object'}."


def read_instruction(text: str) -> list[Told]:
    """The sentences of an instruction, understood. Raises ValueError for a sentence outside the grammar."""
    told = []
    for sentence in re.findall(r"[^.]+\.", text) or [text]:
        match = _SENTENCE.fullmatch(sentence.strip())
        if match is None:
            raise ValueError(f"instruction {sentence.strip()!r} is not in the grammar of aot_core.worlds.instructions")
        where: Where = match["words"] or (int(match["row"]) - 1, int(match["column"]) - 1)
        new = match["new"] or match["other"]
        told.append(
            Told(
                kind=_KINDS[match["verb"]],
                where=where,
                removed=match["old"],
                added=None if new in (None, "object") else new,
            )
        )
    return told


def article(name: str) -> str:
    """ "a red ring", "an orange cross": the procedural world's words, which this rule serves."""
    return f"{'an' if name[:1].lower() in 'aeiou' else 'a'} {name}"


_KINDS: dict[str, EditKind] = {"Add": "add", "Remove": "remove", "Replace": "replace"}
_PLACE = r"(?:at row (?P<row>\d+), column (?P<column>\d+)|in the (?P<words>[a-z ]+?))"
_SENTENCE = re.compile(
    rf"(?P<verb>Add|Remove|Replace) (?:the (?P<old>.+?)|(?:an? )?(?P<new>.+?)) {_PLACE}"
    r"(?: with (?:an?(?:other)? )?(?P<other>.+))?\."
)


def _name(attributes: Attributes) -> str:
    return " ".join(attributes.values())


def _a(attributes: Attributes) -> str:
    name = _name(attributes)
    return with_article(name) if "name" in attributes else article(name)


def _at(where: Where) -> str:
    return f"in the {where}" if isinstance(where, str) else f"at row {where[0] + 1}, column {where[1] + 1}"
