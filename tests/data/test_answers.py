import pytest

from aot_core.data.answers import extract_letter, is_exactly_boxed


@pytest.mark.parametrize(
    ("completion", "letter"),
    [
        (r"\boxed{A}", "A"),
        (r"\boxed{ (b) }", "B"),
        (r"\boxed{C.}", "C"),
        ("boxed (a)", "A"),
        ("boxed{D}", "D"),
        (r"\boxed D", "D"),
        ("The answer is B.", "B"),
        ("Answer: (c)", "C"),
        ("I choose option D, the ring.", "D"),
        ("B", "B"),
        ("(B)", "B"),
        ("B. ring", "B"),
        (r"A is wrong, so \boxed{B}", "B"),
        (r"The answer is A ... no: \boxed{B}", "B"),
        (r"\boxed{A} and again \boxed{A}", "A"),
        # nothing, or too much
        ("", None),
        ("red", None),
        ("A red ring stands there.", None),
        ("I'm not sure.", None),
        (r"\boxed{A} \boxed{B}", None),
        ("A, B, C or D", None),
        (r"\boxed{E}", None),
        (r"\boxed{red}", None),
        (r"\boxed{}", None),
        ("unboxed", None),
        ("the answer is blue", None),
    ],
)
def test_extract_letter(completion: str, letter: str | None) -> None:
    assert extract_letter(completion, "ABCD") == letter


def test_only_offered_letters_count() -> None:
    assert extract_letter(r"\boxed{C}", "AB") is None
    assert extract_letter(r"\boxed{C} \boxed{B}", "AB") == "B"


@pytest.mark.parametrize(
    ("completion", "exact"),
    [
        (r"\boxed{A}", True),
        (r"So it is \boxed{A}.", True),
        (r"\boxed{B}", False),
        (r"\boxed{a}", False),
        (r"\boxed{ A }", False),
        (r"\boxed{(A)}", False),
        ("boxed{A}", False),
        ("boxed (a)", False),
        (r"\boxed{A} \boxed{B}", False),
        ("A", False),
    ],
)
def test_is_exactly_boxed(completion: str, exact: bool) -> None:
    assert is_exactly_boxed(completion, "A") is exact
