"""The table of what models say, and what of it is an answer: read by hand, each line for the reason beside it.

`answers.jsonl`, a line each: `said`, the completion; `options`, the options' texts (empty: a yes/no question without
options); `cut_off`, where the length limit ended it; `answer`, the letter, Yes or No, or null where it gives none.
"""

import json
import time
from pathlib import Path
from typing import Any

import pytest

from aot_core.answers import extract_letter, letter_of, parse_choice, parse_yes_no
from aot_core.contracts.protocols import Completion

TABLE = [json.loads(line) for line in (Path(__file__).parent / "answers.jsonl").read_text("utf-8").splitlines()]


def read(row: dict[str, Any]) -> str | None:
    said = Completion(row["said"], cut_off=row.get("cut_off", False))
    if not row["options"]:
        return parse_yes_no(said)
    return parse_choice(said, tuple(zip("ABCDEFGHI", row["options"], strict=False)))


@pytest.mark.parametrize("why", sorted({row["why"] for row in TABLE}))
def test_the_table(why: str) -> None:
    rows = [row for row in TABLE if row["why"] == why]
    assert [(row["said"], read(row)) for row in rows] == [(row["said"], row["answer"]) for row in rows]


def test_without_the_options_texts_nothing_else_is_read() -> None:
    """Who knows the letters alone may read less, and never another letter."""
    for row in TABLE:
        letters = "ABCDEFGHI"[: len(row["options"])]
        said = Completion(row["said"], cut_off=row.get("cut_off", False))
        assert not letters or extract_letter(said, letters) in (row["answer"], None), row
        if 0 < len(letters) < 9:
            assert letter_of(said, row["options"]) == row["answer"]


def test_the_table_is_as_long_as_it_should_be_and_says_nothing_twice() -> None:
    lines = {(row["said"], *row["options"], row.get("cut_off", False)) for row in TABLE}
    assert len(lines) == len(TABLE) >= 300


@pytest.mark.parametrize("piece", [r"\boxed{", "not A, ", "answer is the ", "(", r"\text{", "A or ", "<answer>", "x "])
def test_no_completion_takes_long_to_read(piece: str) -> None:
    """What a model repeats to its limit is read in a moment: a reward is asked for thousands of answers."""
    start = time.monotonic()
    letter_of(piece * (20_000 // len(piece)), ("a cup", "a vase"))
    assert time.monotonic() - start < 5


@pytest.mark.parametrize("blank", ["", " ", "\n", "\n\n", "\t"])
def test_blanks_before_an_answer_change_nothing(blank: str) -> None:
    """A leading blank made an article of "A Cup" the letter A, and hid that two options are named."""
    options = ["Cup", "Plate"]
    assert letter_of(f"{blank}The answer is A Cup or B Plate", options) is None
    assert letter_of(f"{blank}The answer is A Plate", options) == "B"
