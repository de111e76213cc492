"""What is written in the grammar is understood again."""

import pytest

from aot_core.worlds.instructions import add_instruction, read_instruction, remove_instruction, replace_instruction

RING = {"colour": "red", "shape": "ring"}
CROSS = {"colour": "orange", "shape": "cross"}


def test_sentences_read_as_agreed() -> None:
    assert add_instruction(RING, (1, 2)) == "Add a red ring at row 2, column 3."
    assert add_instruction(CROSS, (0, 0)) == "Add an orange cross at row 1, column 1."
    assert add_instruction(None, (1, 2)) == "Add an object at row 2, column 3."
    assert remove_instruction(RING, (0, 1)) == "Remove the red ring at row 1, column 2."
    assert replace_instruction(RING, (0, 1), CROSS) == ("Replace the red ring at row 1, column 2 with an orange cross.")
    assert replace_instruction(RING, (0, 1), None) == "Replace the red ring at row 1, column 2 with another object."
    assert add_instruction({"name": "cup"}, "lower left") == "Add a cup in the lower left."


def test_several_sentences_are_understood_again() -> None:
    text = " ".join(
        [
            add_instruction(RING, (1, 2)),
            add_instruction(None, (0, 0)),
            remove_instruction(CROSS, (3, 3)),
            replace_instruction(RING, (1, 1), CROSS),
            replace_instruction(RING, (1, 1), None),
            add_instruction({"name": "space shuttle model"}, "upper middle"),
        ]
    )
    assert read_instruction(text) == [
        ("add", (1, 2), None, "red ring"),
        ("add", (0, 0), None, None),
        ("remove", (3, 3), "orange cross", None),
        ("replace", (1, 1), "red ring", "orange cross"),
        ("replace", (1, 1), "red ring", None),
        ("add", "upper middle", None, "space shuttle model"),
    ]


@pytest.mark.parametrize("text", ["Paint it black.", "Add a ring.", "", "Add a red ring at row x, column 2."])
def test_other_sentences_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not in the grammar"):
        read_instruction(text)
