"""Questions and instructions speak of things as English does."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.data.test_photographs import asked, picture_of, thing

from aot_core.contracts.scene import QuestionKind
from aot_core.worlds.grammar import is_plural, is_there, plural_of, with_article
from aot_core.worlds.instructions import add_instruction, article, read_instruction, replace_instruction
from aot_core.worlds.photographs.annotated import plain_name
from aot_core.worlds.photographs.proposals import THINGS
from aot_core.worlds.shapes import world


@pytest.mark.parametrize(
    ("name", "one", "many"),
    [
        ("cup", "a cup", "cups"),
        ("apple", "an apple", "apples"),
        ("umbrella", "an umbrella", "umbrellas"),
        ("unicorn", "a unicorn", "unicorns"),
        ("hourglass", "an hourglass", "hourglasses"),
        ("one-way sign", "a one-way sign", "one-way signs"),
        ("knife", "a knife", "knives"),
        ("mouse", "a mouse", "mice"),
        ("person", "a person", "people"),
        ("person on horse", "a person on horse", "people on horse"),
        ("wine glass", "a wine glass", "wine glasses"),
        ("bus", "a bus", "buses"),
        ("bench", "a bench", "benches"),
        ("lens", "a lens", "lenses"),
        ("sheep", "a sheep", "sheep"),
        ("series", "a series", "series"),
        ("thermos", "a thermos", "thermoses"),
        ("scissors", "scissors", "scissors"),
        ("skis", "skis", "skis"),
        ("jeans", "jeans", "jeans"),
        ("people", "people", "people"),
        ("wine glasses", "wine glasses", "wine glasses"),
        ("bow (decorative ribbons)", "a bow (decorative ribbons)", "bows (decorative ribbons)"),
        ("overalls (clothing)", "overalls (clothing)", "overalls (clothing)"),
        ("TV", "a TV", "TVs"),
        ("dog 0", "a dog 0", "dog 0s"),
        ("犬", "a 犬", "犬s"),
    ],
)
def test_one_and_many(name: str, one: str, many: str) -> None:
    assert (with_article(name), plural_of(name)) == (one, many)
    assert is_plural(name) == (one == many and one == name)
    assert is_there(name) == f"{'Are' if is_plural(name) else 'Is'} there {one}"


def texts(name: str, kind: QuestionKind) -> set[str]:
    picture = picture_of(thing(name, 40, 140), thing("spoon", 240, 140))
    return {q.text for q in asked(picture, kind, (name,)) if q.query.target["name"] == name}


def test_photographs_are_asked_about_in_english() -> None:
    assert texts("apple", "existence") == {"Is there an apple in the picture?"}
    assert texts("scissors", "existence") == {"Are there scissors in the picture?"}
    assert texts("scissors", "count") == {"How many scissors are there in the picture?"}
    assert texts("knife", "count") == {"How many knives are there in the picture?"}
    assert texts("scissors", "relation") == {"Where in the picture are the scissors, seen from the spoon?"}
    assert texts("cup", "relation") == {"Where in the picture is the cup, seen from the spoon?"}
    assert plain_name("wine_glass") == "wine glass" and plain_name("_St._Bernard_") == "St Bernard"


@pytest.mark.parametrize("name", [*THINGS, "skis", "wine glasses", "A", "hour hand", "dog with a bone", "an end"])
def test_instructions_are_read_back_as_they_were_told(name: str) -> None:
    (told,) = read_instruction(add_instruction({"name": name}, "lower left"))
    assert (told.kind, told.where, told.added) == ("add", "lower left", name)
    (told,) = read_instruction(replace_instruction({"name": "cup"}, "centre", {"name": name}))
    assert (told.kind, told.removed, told.added) == ("replace", "cup", name)
    (told,) = read_instruction(replace_instruction({"name": name}, "centre", None))
    assert (told.removed, told.added) == (name, None)


def test_the_procedural_world_speaks_as_it_always_did() -> None:
    """The shipped models were trained on these words."""
    for colour in world.COLOURS:
        for shape in world.SHAPES:
            told = add_instruction({"colour": colour, "shape": shape}, (0, 0))
            assert told == f"Add {'an' if colour[0] in 'aeiou' else 'a'} {colour} {shape} at row 1, column 1."
            assert article(f"{colour} {shape}") == with_article(f"{colour} {shape}")


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.text(st.characters(codec="utf-8", exclude_categories=("Cs",)), min_size=1, max_size=12))
def test_whatever_the_name_something_is_said(name: str) -> None:
    try:
        plain = plain_name(name)
    except ValueError:
        return
    assert plural_of(plain) and with_article(plain).endswith(plain)


def test_drawn_scenes_do_not_wait_for_the_library() -> None:
    import subprocess
    import sys

    code = "import sys, aot_core.data.pipeline, aot_core.worlds.protocol; print('inflect' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "False"
