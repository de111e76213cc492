from dataclasses import replace

import pytest

from aot_core.evaluation.items import Item
from aot_core.evaluation.robustness import calibration_error, changes, changes_by, every_attack, hallucination


def item(name: str, letters: str, answer: str = "A", kind: str = "existence") -> Item:
    given = tuple(None if letter == "." else letter for letter in letters)
    return Item("x", name, name, kind, answer, given, ("yes", "no"))


def test_flips_are_counted_among_the_questions_that_were_right() -> None:
    clean = [item("1", "AA"), item("2", "AA"), item("3", "AB"), item("4", "AA"), item("5", "BB")]
    edited = [item("1", "AA"), item("2", "AB"), item("3", "AA"), item("5", "BB")]  # 4 had no valid edit
    both = changes(clean, edited)
    assert (both.flipped, both.right, both.mended, both.wrong) == (0.5, 2, 0.5, 2)
    alone = changes(clean[:1], edited[:1])
    assert (alone.flipped, alone.right, alone.mended, alone.wrong) == (0.0, 1, None, 0)


def test_changes_by_kind_of_question_and_of_edit() -> None:
    clean = [item("1", "AA"), item("2", "AA", kind="count"), item("3", "AB", kind="count")]
    after = {"1": "AA", "2": "AB", "3": "AA"}
    told = {"1": "add", "2": "add", "3": "remove"}
    edited = [replace(one, letters=tuple(after[one.item_id]), edit=told[one.item_id]) for one in clean]
    by_question = changes_by(lambda one: one.kind, clean, {"semantic": edited})
    assert {name: (c.flipped, c.mended) for name, c in by_question.items()} == {
        "semantic/count": (1.0, 1.0),
        "semantic/existence": (0.0, None),
    }
    by_edit = changes_by(lambda one: one.edit, clean, {"semantic": edited})
    assert by_edit["semantic/add"].flipped == 0.5 and by_edit["semantic/add"].right == 2
    assert (by_edit["semantic/remove"].flipped, by_edit["semantic/remove"].mended) == (None, 1.0)


def test_the_worst_case_of_each_question() -> None:
    attacks = {"one": [item("1", "AA"), item("2", "AA")], "two": [item("1", "AB"), item("3", "AA")]}
    assert every_attack(attacks) == pytest.approx(2 / 3)
    assert every_attack({}) is None


def test_calibration_by_agreement() -> None:
    # Sure and right, sure and wrong, two of three and right: bins at 1 (1 of 2 right) and 2/3 (1 of 1).
    asked = [item("1", "AAA"), item("2", "BBB"), item("3", "AAB")]
    assert calibration_error(asked) == pytest.approx((2 * 0.5 + 1 * (1 / 3)) / 3)
    assert calibration_error([item("1", "A")]) is None and calibration_error([]) is None


def test_hallucination_is_saying_yes_to_what_is_not_there() -> None:
    asked = [item("1", "AB", answer="B"), item("2", "B.", answer="B"), item("3", "AA", answer="A")]
    assert hallucination(asked) == pytest.approx(1 / 4)
    assert hallucination([item("4", "AA", answer="B", kind="count")]) is None
