r"""What the tiny base model is taught: short dialogues about uncrowded scenes of the procedural world.

A lesson is a prompt and its answer. The four kinds of question come as multiple choice (`question.prompt`,
answered with `\boxed{X}`, now and then in prose) and plainly ("Is there a red ring?" "yes"); three tasks that the
game never asks teach to look: where an object is, what a place holds (the shipped model's recipe has these two), and
a list of everything. From questions alone the binding of colour, shape and place is hardly learned.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from aot_core.contracts.scene import LETTERS, QuestionKind, SceneObject
from aot_core.worlds.shapes import world
from aot_core.worlds.shapes.questions import ask_world

KINDS: tuple[QuestionKind, ...] = ("attribute", "existence", "relation", "count")
PROSE = 0.06
r"""Share of multiple-choice lessons answered "The answer is X." instead of `\boxed{X}`: the game's format reward has
something left to teach."""
DOUBT = 0.06
"""Probability mass that the target leaves to the wrong options: a model that is never in doubt cannot learn from its
own samples."""


@dataclass(frozen=True)
class Lesson:
    """A prompt and the answer to it."""

    prompt: str
    answer: str
    others: tuple[str, ...] = ()
    """Answers to the same prompt that are wrong and differ from `answer` in one token; they share `DOUBT`."""


Mixture = Mapping[str, float]
"""Weights of lesson names: "KIND" (multiple choice), "plain KIND", "where", "what", "list"."""


def draw_lessons(
    rng: np.random.Generator, objects: Sequence[SceneObject], mixture: Mixture, count: int
) -> list[Lesson]:
    """`count` lessons about one scene, drawn from the mixture.

    Kinds that the scene does not allow are passed over: fewer lessons than `count`, where it allows hardly any.
    """
    names, weights = list(mixture), np.array(list(mixture.values()), dtype=float)
    lessons: list[Lesson] = []
    for _ in range(8 * count):
        if len(lessons) == count:
            break
        name = names[int(rng.choice(len(names), p=weights / weights.sum()))]
        lesson = draw_lesson(rng, objects, name)
        if lesson is not None:
            lessons.append(lesson)
    return lessons


def draw_lesson(rng: np.random.Generator, objects: Sequence[SceneObject], name: str) -> Lesson | None:
    """One lesson of a name in the mixture; None where the scene allows none."""
    if name in _LOOKING:
        return _LOOKING[name](rng, objects)
    kind = name.removeprefix("plain ")
    question = ask_world(rng, kind, objects)  # type: ignore[arg-type]
    if question is None:
        return None
    if name.startswith("plain "):
        return Lesson(question.text, question.answer_text)
    letters = [letter for letter in LETTERS[: len(question.options)] if letter != question.answer]
    form = "The answer is {}." if rng.random() < PROSE else "\\boxed{{{}}}"
    return Lesson(question.prompt, form.format(question.answer), tuple(form.format(other) for other in letters))


def corpus(rng: np.random.Generator, size: int = 3000) -> list[str]:
    r"""Text to train the tokenizer on: lessons, and every letter's box, so that `\boxed{A}` is few tokens."""
    texts = [f"\\boxed{{{letter}}}" for letter in LETTERS] * (size // 10)
    mixture = dict.fromkeys(("where", "what", "list", *KINDS, *(f"plain {kind}" for kind in KINDS)), 1.0)
    while len(texts) < size * 2:
        objects = world.random_objects(rng, int(rng.integers(2, 5)))
        for lesson in draw_lessons(rng, objects, mixture, 4):
            texts += [lesson.prompt, f"system user assistant\n{lesson.answer}"]
    return texts


def _where(rng: np.random.Generator, objects: Sequence[SceneObject]) -> Lesson:
    words = dict(objects[int(rng.integers(len(objects)))].attributes)
    if rng.random() < 0.4:
        # A hard negative, as in the existence questions: one attribute is right.
        axis, values = ("colour", world.COLOURS) if rng.random() < 0.5 else ("shape", world.SHAPES)
        words[axis] = str(rng.choice(list(values)))
    found = [thing for thing in objects if thing.matches(words)]
    place = "nowhere"
    if found:
        row, column = world.cell_of(found[0].box)
        place = f"row {row + 1}, column {column + 1}"
    return Lesson(f"Where is the {' '.join(words.values())}?", place)


def _what(rng: np.random.Generator, objects: Sequence[SceneObject]) -> Lesson:
    cells = {world.cell_of(thing.box): thing for thing in objects}
    every = world.all_cells()
    cell = every[int(rng.integers(len(every)))] if rng.random() < 0.2 else list(cells)[int(rng.integers(len(cells)))]
    name = cells[cell].name if cell in cells else "nothing"
    return Lesson(f"What is at row {cell[0] + 1}, column {cell[1] + 1}?", name)


def _list(_: np.random.Generator, objects: Sequence[SceneObject]) -> Lesson:
    ordered = sorted(objects, key=lambda thing: world.cell_of(thing.box))
    return Lesson("List all objects.", ", ".join(thing.name for thing in ordered))


_LOOKING = {"where": _where, "what": _what, "list": _list}
