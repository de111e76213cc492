"""Does an edited photograph keep its question's truth, and show objects? An MLLM is asked, as no parser reads it.

    clean, edited, question, edits -> yes/no questions, half of them wanting a no -> answers -> `Inspection`

The judge is an `Answerer` (any image-text-to-text model behind the Defender's interface; `worlds.checker` asks in the
same way). What it has not said in exactly the form asked for counts against the edit. As both answers are
wanted of it, a judge that always says the same passes nothing.
"""

import logging
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from PIL import Image

from aot_core.answers import is_exactly_boxed
from aot_core.contracts.protocols import Answerer
from aot_core.contracts.scene import LETTERS, Box, Question, Sample
from aot_core.worlds.checker import side_by_side, yes_or_no
from aot_core.worlds.grammar import is_there, with_article
from aot_core.worlds.instructions import read_instruction
from aot_core.worlds.proposals import Proposal

HOLDS = 'About this picture somebody was asked: "{question}" ({options}) Is "{answer}" the right answer?'
CHANGED = (
    'About this picture somebody was asked: "{question}" ({options}) Would an answer other than "{answer}" be right?'
)
OBJECT = (
    "The right picture is the left one after an edit. Does the right one show a whole, recognisable object that the "
    "left one lacks?"
)
TEXTURE = (
    "The right picture is the left one after an edit. Is what was added mere texture, pattern, blur or writing, and "
    "not a thing?"
)
NAMED = "The right picture is the left one after an edit. Does the right one show {thing} that the left one lacks?"
GONE = "{is_there} in the picture?"
_MARGIN = 8
"""Pixels around a region that are shown with it."""

logger = logging.getLogger(__name__)


class Inspection(NamedTuple):
    """What the judge says of one edited photograph."""

    truth: bool
    """The right answer to the question is still right, and no other is."""
    objects: bool
    """In every region: what was added is an object, of the named class where one was named; what was to go is gone."""


class _Ask(NamedTuple):
    edit: int
    about_truth: bool
    picture: Image.Image
    question: Question
    """Yes or no; its answer is the one that speaks for the edit."""


def inspect_edits(
    judge: Answerer,
    samples: Sequence[Sample],
    proposals: Sequence[Proposal],
    cleans: Sequence[Image.Image],
    editeds: Sequence[Image.Image],
) -> list[Inspection]:
    """Ask about every edited photograph, all questions in one greedy call: the same pictures, the same answers.

    Raises ValueError where the sequences differ in length, and what the judge raises when it cannot answer.
    """
    pairs = enumerate(zip(samples, proposals, cleans, editeds, strict=True))
    asks = [ask for number, one in pairs for ask in _questions(number, *one)]
    if not asks:
        return []
    questions = [ask.question for ask in asks]
    said = judge.answer([ask.picture for ask in asks], questions, samples=1, temperature=0.0, seed=0)
    held = [is_exactly_boxed(text, ask.question.answer) for ask, (text,) in zip(asks, said, strict=True)]
    unclear = [text for (text,) in said if not any(is_exactly_boxed(text, letter) for letter in LETTERS[:2])]
    if unclear:
        logger.warning(
            "validity.judge: %d of %d answers are not a clear yes or no and count against the edit, such as %r",
            len(unclear),
            len(said),
            unclear[0][:200],
        )
    failed = {(ask.edit, ask.about_truth) for ask, good in zip(asks, held, strict=True) if not good}
    return [Inspection((number, True) not in failed, (number, False) not in failed) for number in range(len(samples))]


def _questions(
    number: int, sample: Sample, proposal: Proposal, clean: Image.Image, edited: Image.Image
) -> Iterator[_Ask]:
    asked = sample.question
    words = {"question": asked.text, "options": " / ".join(asked.options), "answer": asked.answer_text}
    yield _Ask(number, True, edited, yes_or_no(HOLDS.format(**words), "yes"))
    yield _Ask(number, True, edited, yes_or_no(CHANGED.format(**words), "no"))
    for edit in proposal.edits:
        around = _around(edit.region, edited.size)
        if edit.kind == "remove":
            # A photograph's thing is told by its name, and not by its place in the whole picture.
            removed = edit.removed and edit.removed.attributes.get("name", edit.removed.name)
            asks = GONE.format(is_there=is_there(removed or "object"))
            yield _Ask(number, False, edited.crop(around), yes_or_no(asks, "no"))
            continue
        both = side_by_side(clean.crop(around), edited.crop(around))
        yield _Ask(number, False, both, yes_or_no(OBJECT, "yes"))
        yield _Ask(number, False, both, yes_or_no(TEXTURE, "no"))
        named = read_instruction(edit.instruction)[0].added
        if named is not None:
            yield _Ask(number, False, both, yes_or_no(NAMED.format(thing=with_article(named)), "yes"))


def _around(region: Box, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """The region and a margin, as a crop (left, top, right, bottom) inside a picture of `size` (width, height)."""
    return (
        max(0, int(region.x) - _MARGIN),
        max(0, int(region.y) - _MARGIN),
        min(size[0], round(region.right) + _MARGIN),
        min(size[1], round(region.bottom) + _MARGIN),
    )
