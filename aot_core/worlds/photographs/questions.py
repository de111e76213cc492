"""Questions about photographs, by object names and places; only indisputable ones.

Truth comes from the annotations, which say what is there but seldom all of it. So a question is asked only where
neither a doubtful object (a crowd, half a thing, an unboxed part: `Picture.doubtful`) nor, for absence, anything
the picture's objects imply could change the answer, nor anything without annotation (`Picture.coverages`).
"""

from collections.abc import Sequence

import numpy as np

from aot_core.contracts.scene import Query, Question, QuestionKind, SceneObject
from aot_core.worlds.coverage import all_know
from aot_core.worlds.grammar import is_plural, is_there, plural_of
from aot_core.worlds.photographs.places import PLACES
from aot_core.worlds.questions import MAX_COUNT, RELATIONS, count_options, make_question, pick
from aot_core.worlds.sources import Picture


def ask_photo(rng: np.random.Generator, kind: QuestionKind, picture: Picture, names: Sequence[str]) -> Question | None:
    """A random question of a kind about a photograph; None where it allows none, or only disputable ones.

    `names` are all names that things may have; those that are not in the picture are asked about as absent.
    """
    objects = picture.scene.objects
    if not objects:
        return None
    if kind == "existence":
        question = _existence(rng, picture, names)
    elif kind == "attribute":
        question = _place(rng, objects)
    elif kind == "relation":
        question = _relation(rng, objects)
    else:
        question = _count(rng, objects)
    if question is None or picture.settled(question.query) is None:
        return None
    return question


def _existence(rng: np.random.Generator, picture: Picture, names: Sequence[str]) -> Question | None:
    objects = picture.scene.objects
    name = pick(rng, objects).attributes["name"]
    if rng.random() < 0.5:
        present = {thing.attributes["name"] for thing in objects}
        absent = [other for other in names if other not in present and all_know(picture.coverages, other)]
        if not absent:
            return None
        name = str(rng.choice(absent))
    query = Query(kind="existence", target={"name": name})
    return make_question(rng, query, f"{is_there(name)} in the picture?", ["yes", "no"], objects)


def _place(rng: np.random.Generator, objects: Sequence[SceneObject]) -> Question | None:
    thing = pick(rng, objects)
    place, name = thing.attributes.get("place"), thing.attributes["name"]
    if place is None or _says(name, place):
        return None
    # Wrong places where something else stands come first: what is there tempts more than what is not.
    taken = {other.attributes.get("place") for other in objects}
    others = [PLACES[int(i)] for i in rng.permutation(len(PLACES)) if PLACES[int(i)] != place]
    others.sort(key=lambda other: other not in taken)
    options = [place, *others[:3]]
    query = Query(kind="attribute", target={"name": name}, asked="place")
    return make_question(rng, query, f"Where in the picture {_are(name)} the {name}?", options, objects)


def _relation(rng: np.random.Generator, objects: Sequence[SceneObject]) -> Question | None:
    if len(objects) < 2:
        return None
    first, second = (objects[int(i)].attributes["name"] for i in rng.choice(len(objects), size=2, replace=False))
    if any(_says(name, word) for name in (first, second) for word in RELATIONS):
        return None
    query = Query(kind="relation", target={"name": first}, reference={"name": second})
    text = f"Where in the picture {_are(first)} the {first}, seen from the {second}?"
    return make_question(rng, query, text, list(RELATIONS), objects)


def _count(rng: np.random.Generator, objects: Sequence[SceneObject]) -> Question | None:
    name = pick(rng, objects).attributes["name"]
    found = sum(thing.attributes["name"] == name for thing in objects)
    if found > MAX_COUNT:
        return None
    query = Query(kind="count", target={"name": name})
    text = f"How many {plural_of(name)} are there in the picture?"
    return make_question(rng, query, text, count_options(rng, found), objects)


def _are(name: str) -> str:
    return "are" if is_plural(name) else "is"


def _says(name: str, answer: str) -> bool:
    """Whether a name gives an answer away: "left eye" is left of most things."""
    return bool(set(name.split()) & set(answer.split()))
