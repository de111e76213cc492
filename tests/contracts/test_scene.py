"""Records refuse what cannot be true, and say which field and why."""

import pytest
from pydantic import ValidationError

from aot_core.contracts.scene import Box, Query, Question, Scene, SceneObject

RING = Query(kind="existence", target={"colour": "red", "shape": "ring"})


def test_an_answer_must_be_among_the_options() -> None:
    with pytest.raises(ValidationError, match="answer 'C' is not among the options' letters A, B"):
        Question(query=RING, text="Is there a red ring?", options=("yes", "no"), answer="C")


def test_options_must_differ() -> None:
    with pytest.raises(ValidationError, match="options repeat"):
        Question(query=RING, text="Is there a red ring?", options=("yes", "yes"), answer="A")


def test_a_box_must_lie_inside_its_image() -> None:
    thing = SceneObject(box=Box(x=60, y=0, width=10, height=10), attributes={"name": "cup"})
    with pytest.raises(ValidationError, match=r"objects\[0\].box \(cup\) reaches outside the 64x64 image"):
        Scene(scene_id="s", source_id="s", width=64, height=64, objects=(thing,))


@pytest.mark.parametrize("field", ["width", "height"])
def test_a_box_has_an_area(field: str) -> None:
    with pytest.raises(ValidationError, match=field):
        Box(**{"x": 0, "y": 0, "width": 1, "height": 1, field: 0})


def test_overlap_is_the_area_that_both_cover() -> None:
    first = Box(x=0, y=0, width=4, height=4)
    assert first.overlap(Box(x=2, y=3, width=4, height=4)) == 2 * 1
    assert first.overlap(Box(x=4, y=0, width=1, height=1)) == 0


def test_the_prompt_has_an_option_a_line_and_asks_for_a_box() -> None:
    question = Question(query=RING, text="Is there a red ring?", options=("no", "yes"), answer="B")
    assert question.prompt == "Is there a red ring?\nA. no\nB. yes\nAnswer with \\boxed{X}."
    assert question.answer_text == "yes"
