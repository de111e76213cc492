"""What a question about the procedural world asks, read back from its words (`shapes.questions` writes them)."""

import re
from collections.abc import Callable

from aot_core.contracts.scene import Query
from aot_core.worlds.shapes import world


def read_question(text: str) -> Query | None:
    """The query of a question in the procedural world's words; None for any other text."""
    for pattern, query in _FORMS:
        match = pattern.fullmatch(text.strip())
        if match is not None:
            return query({name: word for name, word in match.groupdict().items() if word is not None})
    return None


_COLOUR = "|".join((*world.COLOURS, *world.UNSEEN_COLOURS))
_SHAPE = "|".join((*world.SHAPES, *world.UNSEEN_SHAPES))
_FORMS: tuple[tuple[re.Pattern[str], Callable[[dict[str, str]], Query]], ...] = (
    (
        re.compile(rf"Is there an? (?P<colour>{_COLOUR}) (?P<shape>{_SHAPE})\?"),
        lambda words: Query(kind="existence", target=words),
    ),
    (
        re.compile(rf"What colour is the (?P<shape>{_SHAPE})\?"),
        lambda words: Query(kind="attribute", target=words, asked="colour"),
    ),
    (
        re.compile(rf"What shape is the (?P<colour>{_COLOUR}) object\?"),
        lambda words: Query(kind="attribute", target=words, asked="shape"),
    ),
    (
        re.compile(
            rf"Where is the (?P<colour>{_COLOUR}) (?P<shape>{_SHAPE}), "
            rf"seen from the (?P<colour2>{_COLOUR}) (?P<shape2>{_SHAPE})\?"
        ),
        lambda words: Query(
            kind="relation",
            target={"colour": words["colour"], "shape": words["shape"]},
            reference={"colour": words["colour2"], "shape": words["shape2"]},
        ),
    ),
    (
        re.compile(rf"How many (?:(?P<colour>{_COLOUR}) objects|(?P<shape>{_SHAPE})(?:es|s)) are there\?"),
        lambda words: Query(kind="count", target=words),
    ),
)
