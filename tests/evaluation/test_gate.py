import pytest

from aot_core.evaluation.gate import may_lead, worst_case

CHAMPION = {"clean": 0.97, "semantic": 0.80, "attacker_1": 0.70}


def test_the_first_defender_leads() -> None:
    assert may_lead({"clean": 0.5}, None, 0.02) == (True, "there is no champion yet")


def test_a_more_robust_one_leads() -> None:
    leads, reason = may_lead({"clean": 0.96, "semantic": 0.75, "attacker_1": 0.78}, CHAMPION, 0.02)
    assert leads
    assert "worst case 0.750 (semantic) against 0.700 (attacker_1)" in reason


def test_the_same_again_leads() -> None:
    assert may_lead(CHAMPION, CHAMPION, 0.0)[0]


def test_a_less_robust_one_does_not() -> None:
    leads, reason = may_lead({**CHAMPION, "attacker_1": 0.69}, CHAMPION, 0.02)
    assert not leads and "less robust" in reason


def test_clean_accuracy_may_fall_by_the_margin_and_no_more() -> None:
    assert may_lead({**CHAMPION, "clean": 0.95}, CHAMPION, 0.02)[0]
    leads, reason = may_lead({**CHAMPION, "clean": 0.94}, CHAMPION, 0.02)
    assert not leads and "loses more than 0.02 on clean scenes" in reason


def test_other_conditions_are_refused() -> None:
    with pytest.raises(ValueError, match="only one has attacker_1"):
        may_lead({"clean": 1.0, "semantic": 1.0}, CHAMPION, 0.02)


def test_without_clean_accuracy_nothing_is_decided() -> None:
    with pytest.raises(ValueError, match="no clean accuracy"):
        may_lead({"semantic": 1.0}, None, 0.02)


def test_worst_case_without_attacks_is_clean() -> None:
    assert worst_case({"clean": 0.9}) == ("clean", 0.9)
