"""Questions about a scene, their truth derived from its objects.

How objects are spoken of each world says: `shapes.questions` by colour and shape, `photographs.questions` by name.
Every question comes with the boxes that no edit may touch: those of the objects it is about, and, where the truth
is "no" or "0", those that come nearest (they share an attribute with what was asked for).
"""

from collections.abc import Sequence

import numpy as np

from aot_core.contracts.scene import LETTERS, Query, Question, SceneObject
from aot_core.worlds.truth import truth

RELATIONS = ("left", "right", "above", "below")
MAX_COUNT = 4
"""A count question offers four numbers of 0..MAX_COUNT + 1."""


def make_question(
    rng: np.random.Generator, query: Query, text: str, options: Sequence[str], objects: Sequence[SceneObject]
) -> Question | None:
    """Shuffle the options and mark the right one; None where the truth is disputable or not an option."""
    answer = truth(query, objects)
    if answer is None or answer not in options:
        return None
    shuffled = [options[int(i)] for i in rng.permutation(len(options))]
    return Question(
        query=query,
        text=text,
        options=tuple(shuffled),
        answer=LETTERS[shuffled.index(answer)],
        protected=tuple(thing.box for thing in objects_in_question(query, objects)),
    )


def objects_in_question(query: Query, objects: Sequence[SceneObject]) -> list[SceneObject]:
    """The objects that a question is about; where nothing matches, those sharing an attribute with the target."""
    matching = [
        thing
        for thing in objects
        if thing.matches(query.target) or (query.reference and thing.matches(query.reference))
    ]
    return matching or [
        thing for thing in objects if any(thing.attributes.get(k) == v for k, v in query.target.items())
    ]


def pick(rng: np.random.Generator, items: Sequence[SceneObject]) -> SceneObject:
    return items[int(rng.integers(len(items)))]


def count_options(rng: np.random.Generator, answer: int) -> list[str]:
    """Four consecutive numbers that hold the answer at a random place."""
    first = max(0, answer - int(rng.integers(4)))
    return [str(n) for n in range(first, first + 4)]


def plural(word: str) -> str:
    return word + ("es" if word.endswith(("s", "x", "ch", "sh")) else "s")
