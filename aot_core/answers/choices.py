r"""Multiple choice: from a completion to the letter of the option that it gives (the grammar: `aot_core.answers`)."""

from collections.abc import Sequence

from aot_core.answers import phrases, yes_no
from aot_core.answers.boxes import boxes
from aot_core.answers.dress import undress
from aot_core.answers.statements import (
    Offer,
    Said,
    alone,
    inside,
    named_options,
    offer,
    settled,
    stated,
    without_denied,
)
from aot_core.answers.thoughts import without_thoughts
from aot_core.contracts.scene import LETTERS


def letter_of(completion: str, options: Sequence[str]) -> str | None:
    r"""The letter of the one option that a completion gives; None where it gives none, or several.

    Args:
        completion: raw text; a `Completion` that was cut off gives none.
        options: the options' texts, A first.
    """
    return parse_choice(completion, tuple(zip(LETTERS, options, strict=False)))


def extract_letter(completion: str, letters: str) -> str | None:
    """`letter_of` where the options' texts are not known.

    Args:
        completion: raw text.
        letters: the letters on offer, `"ABCD"`. Others are not answers.
    """
    return parse_choice(completion, tuple((letter, "") for letter in letters))


def parse_choice(completion: str, options: Sequence[tuple[str, str]]) -> str | None:
    """`letter_of` for options with letters of their own.

    Args:
        completion: raw text; a `Completion` that was cut off gives none.
        options: (letter, text); texts may be empty.
    """
    said = without_thoughts(completion)
    if not said or not said.strip():
        return None
    on_offer = offer(tuple((letter, text) for letter, text in options))
    found = boxes(said)
    named = [Said(letters, box.start, box.end) for box in found if (letters := inside(box.content, on_offer))]
    if named:
        return settled(named, said)
    for box in found:
        said = said[: box.start] + " " * (box.end - box.start) + said[box.end :]
    text = without_denied(undress(said), on_offer)
    if statements := stated(text, on_offer):
        return settled(statements, text)
    return None if found else _mentioned(text, on_offer)


def _mentioned(text: str, on_offer: Offer) -> str | None:
    """What a text that states nothing names nevertheless: the last three forms of the grammar."""
    letters = frozenset[str]().union(*(said.letters for said in named_options(text, on_offer)))
    letters = letters or alone(text, on_offer)
    if letters:
        return next(iter(letters)) if len(letters) == 1 else None
    if phrases.DECLINES.search(text) or len({match[2] for match in on_offer.letters_in(text)}) > 1:
        return None
    if set(on_offer.texts) == {"yes", "no"}:
        word = yes_no.said_word(text)
        return on_offer.texts[word.lower()] if word else None
    names = {name for name, *_ in on_offer.texts_in(text)}
    return names.pop() if len(names) == 1 else None
