"""How English speaks of a thing by its name: "an apple", "scissors", "wine glasses". For names that people give.

The procedural world's own words keep their plain rules (`questions.plural`): the shipped models were trained on them.
"""

import re
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from inflect import engine

_WORDS = re.compile(r"[A-Za-z][A-Za-z']*(?:[ -][A-Za-z][A-Za-z']*)*")
_NOTE = re.compile(r"\s*\([^()]*\)$")
"""What LVIS adds to a name: "bow (decorative ribbons)"."""
_SINGULAR_IN_S = {"series", "species", "chassis", "corps", "news", "headquarters", "gallows", "means", "crossroads"}


def with_article(name: str) -> str:
    """ "an apple", "a unicorn", "an hour glass"; what is plural already has none: "scissors"."""
    if is_plural(name):
        return name
    article = _inflect().a(name).split(" ", 1)[0] if _WORDS.match(name) else "a"
    return f"{article} {name}"


def is_there(name: str) -> str:
    """ "Is there an apple", "Are there scissors": the beginning of a question."""
    return f"{'Are' if is_plural(name) else 'Is'} there {with_article(name)}"


def plural_of(name: str) -> str:
    """ "knives", "wine glasses", "bows (decorative ribbons)", "scissors", "TVs"."""
    if note := _NOTE.search(name):
        return plural_of(name[: note.start()]) + note[0]
    if is_plural(name):
        return name
    # The library makes "TVS" of "TV".
    if not _WORDS.fullmatch(name) or name.split()[-1].isupper():
        return f"{name}s"
    return _inflect().plural_noun(name)


def is_plural(name: str) -> bool:
    """Whether a name is plural already: "skis", "people", and what has no singular: "scissors"."""
    name = _NOTE.sub("", name)
    last = re.split(r"[ -]", name)[-1]
    if not _WORDS.fullmatch(name) or last.isupper():
        return False
    many = _inflect().plural_noun(name)
    if last.endswith("s"):
        # Nothing in English is made plural by a second s: where the library does so, the name was plural.
        return many == f"{name}s" or (many == name and last.lower() not in _SINGULAR_IN_S)
    one = _inflect().singular_noun(name)
    return isinstance(one, str) and one != name and _inflect().plural_noun(one) == name


@lru_cache(maxsize=1)
def _inflect() -> "engine":
    # Late: it takes longer to import than all else here, and drawn scenes have no use for it.
    import inflect

    words = inflect.engine()
    words.defnoun("thermos", "thermoses")
    return words
