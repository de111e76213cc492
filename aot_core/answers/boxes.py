r"""Boxes: `\boxed{...}` with its braces balanced, and the sloppy ways of writing it."""

import re
from typing import NamedTuple

from aot_core.answers.thoughts import without_thoughts

_BOX = re.compile(r"(?:(?<![A-Za-z])\\?boxed\b|\\fbox\b)\s*", re.IGNORECASE)
_MARKED = re.compile(r"<\|begin_of_box\|>(.*?)(?:<\|end_of_box\|>|\Z)", re.DOTALL)
_CLOSING = {"{": "}", "(": ")", "[": "]"}
_LONGEST = 500
"""Characters of a box that are looked at; none that holds an option is longer."""
_BARE = re.compile(r":?\s*([A-Za-z])(?![A-Za-z])")


class Box(NamedTuple):
    """What stands in a box, and where the box stands in the text."""

    content: str
    start: int
    end: int


def boxes(text: str) -> list[Box]:
    r"""The boxes of a text, in order. Of boxes in boxes the innermost are given.

    A box that is not closed ends with its line. `\boxed B` holds B.
    """
    marked = [Box(match[1], *match.span()) for match in _MARKED.finditer(text)]
    found = [box for box in marked if not _BOX.search(box.content)]
    for match in _BOX.finditer(text):
        rest = text[match.end() : match.end() + _LONGEST]
        if rest[:1] in _CLOSING and rest:
            length = _closed(rest)
            box = Box(rest[1 : length - 1] if length else rest[1:].split("\n")[0], match.start(), 0)
            box = box._replace(end=match.end() + (length or len(box.content) + 1))
        elif bare := _BARE.match(rest):
            box = Box(bare[1], match.start(), match.end() + bare.end())
        else:
            continue
        if not _BOX.search(box.content):
            found.append(box)
    return sorted(found, key=lambda box: box.start)


def is_exactly_boxed(completion: str, letter: str) -> bool:
    r"""Whether the letter stands in exactly `\boxed{LETTER}`, capital and without blanks, and no other box is there.

    Thoughts do not count, whatever they box; nothing that was cut off is exact.
    """
    said = without_thoughts(completion)
    return said is not None and (
        re.findall(r"boxed[^A-Za-z]*[A-Za-z]?", said) == [f"boxed{{{letter}"] and f"\\boxed{{{letter}}}" in said
    )


def _closed(text: str) -> int:
    """The length of the bracketed piece that a text begins with; 0 where its bracket is never closed."""
    opening, closing = text[0], _CLOSING[text[0]]
    depth = 0
    for place, character in enumerate(text):
        depth += (character == opening) - (character == closing)
        if depth == 0:
            return place + 1
    return 0
