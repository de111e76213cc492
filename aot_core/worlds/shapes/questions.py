"""Questions about drawn scenes, by colour and shape. `question_reading` parses their words."""

from collections.abc import Callable, Sequence

import numpy as np

from aot_core.contracts.scene import Attributes, Query, Question, QuestionKind, SceneObject
from aot_core.worlds.questions import MAX_COUNT, RELATIONS, count_options, make_question, pick, plural
from aot_core.worlds.shapes import world
from aot_core.worlds.truth import truth


def ask_world(rng: np.random.Generator, kind: QuestionKind, objects: Sequence[SceneObject]) -> Question | None:
    """A random question of a kind about a procedural scene; None where the scene allows none."""
    if not objects:
        return None
    return _KINDS[kind](rng, objects)


def _existence(rng: np.random.Generator, objects: Sequence[SceneObject]) -> Question | None:
    target = dict(pick(rng, objects).attributes)
    if rng.random() < 0.5:
        # A hard negative: the right colour in another shape, or the right shape in another colour.
        axis, words = ("colour", list(world.COLOURS)) if rng.random() < 0.5 else ("shape", list(world.SHAPES))
        absent = [w for w in words if not any(o.matches({**target, axis: w}) for o in objects)]
        if not absent:
            return None
        target[axis] = str(rng.choice(absent))
    query = Query(kind="existence", target=target)
    return make_question(rng, query, f"Is there a {_say(target)}?", ["yes", "no"], objects)


def _attribute(rng: np.random.Generator, objects: Sequence[SceneObject]) -> Question | None:
    asked, given = ("colour", "shape") if rng.random() < 0.5 else ("shape", "colour")
    thing = pick(rng, objects)
    query = Query(kind="attribute", target={given: thing.attributes[given]}, asked=asked)
    text = f"What colour is the {thing.attributes['shape']}?"
    if asked == "shape":
        text = f"What shape is the {thing.attributes['colour']} object?"
    return make_question(rng, query, text, _attribute_options(rng, asked, thing, objects), objects)


def _attribute_options(
    rng: np.random.Generator, asked: str, thing: SceneObject, objects: Sequence[SceneObject]
) -> list[str]:
    """The right value, values that occur in the scene first, then others: four in all."""
    words = list(world.COLOURS) if asked == "colour" else list(world.SHAPES)
    rng.shuffle(words)
    present = {o.attributes[asked] for o in objects}
    words.sort(key=lambda word: word not in present)
    right = thing.attributes[asked]
    return [right, *(w for w in words if w != right)][:4]


def _relation(rng: np.random.Generator, objects: Sequence[SceneObject]) -> Question | None:
    if len(objects) < 2:
        return None
    first, second = (objects[int(i)] for i in rng.choice(len(objects), size=2, replace=False))
    query = Query(kind="relation", target=dict(first.attributes), reference=dict(second.attributes))
    text = f"Where is the {_say(query.target)}, seen from the {_say(query.reference)}?"
    return make_question(rng, query, text, list(RELATIONS), objects)


def _count(rng: np.random.Generator, objects: Sequence[SceneObject]) -> Question | None:
    axis = "colour" if rng.random() < 0.5 else "shape"
    # Mostly something that is there, now and then something that is not.
    word = pick(rng, objects).attributes[axis]
    if rng.random() < 0.15:
        word = str(rng.choice(list(world.COLOURS) if axis == "colour" else list(world.SHAPES)))
    query = Query(kind="count", target={axis: word})
    found = truth(query, objects)
    if found is None or int(found) > MAX_COUNT:
        return None
    text = f"How many {word} objects are there?" if axis == "colour" else f"How many {plural(word)} are there?"
    return make_question(rng, query, text, count_options(rng, int(found)), objects)


def _say(attributes: Attributes) -> str:
    return " ".join(attributes.values())


_KINDS: dict[QuestionKind, Callable[[np.random.Generator, Sequence[SceneObject]], Question | None]] = {
    "existence": _existence,
    "attribute": _attribute,
    "relation": _relation,
    "count": _count,
}
