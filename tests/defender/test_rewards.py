from collections.abc import Sequence

import pytest

from aot_core.contracts.defender_round import DefenderRoundConfig, RewardTerm
from aot_core.defender.rewards import (
    Answered,
    build_terms,
    defender_reward,
    length,
    overlong,
)
from aot_core.rl.reward_terms import RewardError


def answered(
    completion: str = "", answer: str = "A", options: Sequence[str] = ("1", "2", "3", "4"), **rest
) -> Answered:
    return Answered(completion, answer, tuple(options), **({"tokens": 5, "finished": True} | rest))


@pytest.mark.parametrize(
    ("completion", "reward"),
    [(r"\boxed{A}", 1.0), ("boxed (a)", 0.8), ("The answer is A.", 0.8), (r"\boxed{B}", 0.0), ("no idea", 0.0)],
)
def test_paper_reward(completion: str, reward: float) -> None:
    assert defender_reward(completion, "A", "ABCD") == pytest.approx(reward)
    terms = build_terms(DefenderRoundConfig())
    scores = {name: term([answered(completion)])[0] for name, term in terms.items()}
    assert 0.8 * scores["accuracy"] + 0.2 * scores["format"] == pytest.approx(reward), "the same, from its parts"


@pytest.mark.parametrize(
    ("completion", "accuracy", "form"),
    [
        (r"\boxed{Yes}", 1, 1),
        (r"\boxed{yes}", 1, 0),
        (r"\boxed{No}", 0, 0),
        (r"\boxed{Yes} \boxed{No}", 0, 0),
        (r"\boxed{B}", 1, 1),
        (r"\boxed{A}", 0, 0),
        ("yes", 1, 0),
        (r"<think>\boxed{Yes}</think>", 0, 0),
        (r"<think>Not \boxed{No}.</think>\boxed{Yes}", 1, 1),
        (r"It is no. <think>\boxed{Yes}</think>", 0, 0),
    ],
)
def test_a_yes_no_question_is_answered_by_word_or_letter(completion: str, accuracy: int, form: int) -> None:
    terms = build_terms(DefenderRoundConfig())
    batch = [answered(completion, "B", ("no", "yes"))]
    assert (terms["accuracy"](batch), terms["format"](batch)) == ([accuracy], [form])
    assert terms["accuracy"]([answered(r"\boxed{Yes}", "B", ("1", "2"))]) == [0.0], "no word is right elsewhere"


def test_overlong_answers_are_punished_softly() -> None:
    """Equation 13 of DAPO, with a limit of 10 tokens and a buffer of 4."""
    batch = [answered(tokens=n) for n in (1, 6, 7, 8, 10)]
    assert overlong(10, 4)(batch) == [0, 0, -0.25, -0.5, -1]
    assert overlong(10, 4)([answered(tokens=10, finished=False)]) == [-1]
    assert length(10)(batch) == pytest.approx([-0.1, -0.6, -0.7, -0.8, -1])


def test_terms_of_one_s_own_are_imported_by_name() -> None:
    mine = RewardTerm(name="statistics:mean", weight=1.0)
    assert list(build_terms(DefenderRoundConfig(rewards=(mine,)))) == ["statistics:mean"]
    with pytest.raises(RewardError, match=r"reward 'statistics:mean' raised TypeError"):
        build_terms(DefenderRoundConfig(rewards=(mine,)))["statistics:mean"]([answered("x")])
    with pytest.raises(ValueError, match=r"'statistics:average' cannot be imported"):
        build_terms(DefenderRoundConfig(rewards=(RewardTerm(name="statistics:average", weight=1.0),)))
    with pytest.raises(ValueError, match="names a term twice"):
        build_terms(DefenderRoundConfig(rewards=(mine, mine)))


@pytest.mark.parametrize("completion", [r"\boxed{A}", "The answer is A.", r"<think>\boxed{A}"])
def test_what_the_limit_cut_off_is_no_answer(completion: str) -> None:
    """As in the evaluation: training rewards nothing that the hard stop would call unreadable."""
    terms = build_terms(DefenderRoundConfig())
    assert terms["accuracy"]([answered(completion, finished=False)]) == [0.0]
    assert terms["format"]([answered(completion, finished=False)]) == [0.0]


def test_the_article_is_not_rewarded_where_a_is_right() -> None:
    terms = build_terms(DefenderRoundConfig())
    options = ("a cup", "a vase")
    for said in (r"\boxed{a vase}", "The answer is a vase."):
        assert terms["accuracy"]([answered(said, "A", options)]) == [0.0]
        assert terms["accuracy"]([answered(said, "B", options)]) == [1.0]
