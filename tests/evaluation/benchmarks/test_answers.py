r"""The table of what models say. Every line was met in some model's output, or is the plain case beside it."""

import pytest

from aot_core.evaluation.benchmarks.answers import parse_choice, parse_yes_no

OPTIONS = (("A", "rubber"), ("B", "cotton"), ("C", "kevlar"), ("D", "leather"))
NINE = tuple(zip("ABCDEFGHI", ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine"), strict=True))


@pytest.mark.parametrize(
    ("said", "letter"),
    [
        # boxed
        (r"\boxed{B}", "B"),
        (r"The glove shines, so \boxed{ (c) }.", "C"),
        (r"\boxed{B}\boxed{B}", "B"),
        # sloppy
        ("boxed (a)", "A"),
        ("boxed{d}", "D"),
        ("B", "B"),
        ("(B)", "B"),
        ("B. cotton", "B"),
        ("  d)", None),
        ("**C**", "C"),
        # prose
        ("The answer is D.", "D"),
        ("I would choose option B because it is soft.", "B"),
        ("Answer: C", "C"),
        ("A glove like that is made of leather.", "D"),
        ("It is kevlar.", "C"),
        ("The material is Cotton", "B"),
        # thoughts
        ("<think>It may be A, or B.</think> The answer is C", "C"),
        # refusals
        ("I cannot answer this question.", None),
        ("I'm sorry, but I can't determine the material: rubber is hard to see.", None),
        ("", None),
        # several letters
        (r"\boxed{A} or \boxed{B}", None),
        ("The answer is A or the answer is B", None),
        ("(A) (B) (C) (D)", None),
        ("It could be rubber or cotton.", None),
        (r"\boxed{E}", None),
        (r"\boxed{rubber}", "A"),
        # other languages
        ("答案是B", "B"),
        ("正确答案：(C)", "C"),
        ("Die Antwort ist D.", "D"),
        ("La respuesta correcta es la C.", "C"),
        ("La réponse est B", "B"),
        ("答えは \\boxed{A} です", "A"),
        ("Ответ: D", "D"),
    ],
)
def test_choices(said: str, letter: str | None) -> None:
    assert parse_choice(said, OPTIONS) == letter


def test_the_pronoun_is_no_option() -> None:
    assert parse_choice("I think it is option D", NINE) == "D"
    assert parse_choice("I cannot tell", NINE) is None
    assert parse_choice("I", NINE) == "I"
    assert parse_choice(r"\boxed{I}", NINE) == "I"


@pytest.mark.parametrize(
    ("said", "answer"),
    [
        (r"\boxed{Yes}", "Yes"),
        (r"\boxed{no}", "No"),
        (r"\boxed{\text{No}}", "No"),
        (r"\boxed{Yes} \boxed{No}", None),
        ("Yes", "Yes"),
        ("No.", "No"),
        ("yes, there is no doubt", "Yes"),
        ("No, but yes would be nicer", "No"),
        ("There is no dog in the picture.", "No"),
        ("The answer is yes.", "Yes"),
        ("I see a dog.", None),
        ("It is hard to say yes or no.", None),
        ("I cannot answer with yes.", None),
        ("<think>yes yes</think> No", "No"),
        ("", None),
        ("Nobody knows", None),
        ("Oui, il y a un chien.", "Yes"),
        ("Nein.", "No"),
        ("Sí", "Yes"),
        ("Нет", "No"),
        ("是的", "Yes"),
        ("没有", "No"),
        ("はい", "Yes"),
    ],
)
def test_yes_and_no(said: str, answer: str | None) -> None:
    assert parse_yes_no(said) == answer
