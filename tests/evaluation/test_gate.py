import numpy as np
import pytest

from aot_core.contracts.promotion import GateSettings, HardStop
from aot_core.evaluation.gate import GateError, attempt_alpha, decide, exam_of, right_throughout
from aot_core.evaluation.items import Item

N = 400
SETTINGS = GateSettings(resamples=500)


def exam(**right: int) -> dict[str, dict[str, bool]]:
    """Of N questions a condition, the first so many are right."""
    return {name.replace("bench_", "bench/"): {f"{i}": i < count for i in range(N)} for name, count in right.items()}


CHAMPION = exam(clean=380, semantic=300, attacker_1=320)


def failed(challenger: dict[str, dict[str, bool]], settings: GateSettings = SETTINGS) -> list[str]:
    return [test.name for test in decide(challenger, CHAMPION, settings).tests if not test.passed]


def test_the_first_defender_leads_unless_something_stops_it() -> None:
    outcome = decide(exam(clean=10), None, SETTINGS)
    assert outcome.promote and outcome.reason == "there is no champion yet"
    stop = HardStop(name="seen_in_training", stopped=True, told="3 test questions were seen in training")
    fine = HardStop(name="lineage", stopped=False, told="complete")
    outcome = decide(exam(clean=10), None, SETTINGS, [fine, stop])
    assert not outcome.promote and outcome.reason == "stopped: 3 test questions were seen in training"


def floor(challenger: dict[str, dict[str, bool]], base: dict[str, dict[str, bool]]) -> tuple[bool, str]:
    verdict = decide(challenger, None, SETTINGS, base=base)
    return verdict.promote, verdict.reason


def test_the_first_defender_must_not_lie_below_the_base() -> None:
    base = exam(clean=380, semantic=300, attacker_1=320)
    # Ten questions of 400 are the margin of 2.5 points; the worst case has none.
    assert floor(exam(clean=370, semantic=320, attacker_1=300, regression_suite=0) | {"bench/pope": {"1": False}},
                 base | exam(regression_suite=400)) == (
        True,
        "there is no champion yet; clean 0.925 against the base's 0.950; "
        "worst case 0.750 (attacker_1) against the base's 0.750 (semantic)",
    )  # fmt: skip
    assert floor(exam(clean=369, semantic=400, attacker_1=400), base) == (
        False,
        "floor/clean: clean 0.922 against the base's 0.950",
    )
    assert floor(exam(clean=400, semantic=299, attacker_1=400), base) == (
        False,
        "floor/worst_case: worst case 0.748 (semantic) against the base's 0.750 (semantic)",
    )
    # An attack with few questions speaks only where none has more.
    few = {"attacker_2": {"1": True, "2": True}}
    lost = {"attacker_2": {"1": True, "2": False}}
    assert floor(exam(clean=380, semantic=300, attacker_1=320) | lost, base | few)[0]
    assert not floor(exam(clean=380) | lost, exam(clean=380) | few)[0]
    assert floor(exam(clean=380), exam(clean=380)) == (
        True,
        "there is no champion yet; clean 0.950 against the base's 0.950",
    )
    with pytest.raises(GateError, match="challenger and base were measured under different conditions"):
        floor(exam(clean=380), base)


def test_a_better_one_leads() -> None:
    outcome = decide(exam(clean=380, semantic=340, attacker_1=350), CHAMPION, SETTINGS)
    assert outcome.promote, outcome.reason
    worst = outcome.tests[0]
    assert (worst.champion, worst.challenger, worst.difference) == pytest.approx((0.75, 0.85, 0.10))
    assert "worst case 0.850 (semantic) against 0.750 (semantic): better" in outcome.reason
    # Questions 300 to 339 are won under the weakest attack, none is lost: 2^-40.
    assert outcome.tests[1].p_value == pytest.approx(0.5**40)


def test_the_same_again_does_not_lead() -> None:
    outcome = decide(CHAMPION, CHAMPION, SETTINGS)
    assert not outcome.promote and "not shown to be better" in outcome.reason
    assert failed(CHAMPION) == ["superior/worst_case", "superior/every_attack"]


def test_better_on_average_but_not_where_it_is_weakest_does_not_lead() -> None:
    assert "superior/worst_case" in failed(exam(clean=380, semantic=300, attacker_1=400))


def test_a_loss_on_clean_scenes_stops_a_better_one() -> None:
    names = failed(exam(clean=368, semantic=340, attacker_1=350))
    assert names == ["not_worse/clean"]
    assert (
        failed(exam(clean=368, semantic=340, attacker_1=350), SETTINGS.model_copy(update={"clean_margin": 0.06})) == []
    )


def test_each_benchmark_has_its_margin() -> None:
    champion = CHAMPION | exam(bench_pope=320, bench_vstar=200)
    challenger = exam(clean=380, semantic=340, attacker_1=350, bench_pope=320, bench_vstar=196)
    outcome = decide(challenger, champion, SETTINGS)
    lines = {test.name: test for test in outcome.tests}
    assert outcome.promote and (lines["not_worse/pope"].margin, lines["not_worse/vstar"].margin) == (-0.03, -0.10)
    strict = SETTINGS.model_copy(update={"benchmark_margins": {"vstar": 0.015}})
    outcome = decide(challenger, champion, strict)
    assert outcome.reason.startswith("not_worse/vstar: 0.490 against 0.500: not shown to be within 0.015")


def test_one_attack_that_became_much_worse_stops_the_rest() -> None:
    champion = exam(clean=380, semantic=300, attacker_1=390)
    outcome = decide(exam(clean=380, semantic=340, attacker_1=350), champion, SETTINGS)
    lines = {test.name: test for test in outcome.tests}
    assert not lines["regression/attacker_1"].passed and lines["superior/worst_case"].passed
    assert lines["regression/attacker_1"].p_adjusted == pytest.approx(2 * 0.5**40)


def test_what_fooled_earlier_defenders_must_not_fool_again() -> None:
    """A line of its own: neither the worst case, nor in Holm's family, and decided however few questions there are."""
    better = exam(clean=380, semantic=340, attacker_1=350)
    plain = {test.name: test for test in decide(better, CHAMPION, SETTINGS).tests}
    suite = {f"e{i}": i >= 5 for i in range(20)}
    champion = CHAMPION | {"regression_suite": dict.fromkeys(suite, True)}
    verdict = decide(better | {"regression_suite": suite}, champion, SETTINGS)
    lines = {test.name: test for test in verdict.tests}
    refused = lines.pop("regression/suite")
    assert lines == plain, "all else is as without it"
    # Five lost, none won: 2^-5 = 0.03 is below 0.05, and Holm's correction would have let it pass.
    assert refused.p_value == pytest.approx(0.5**5) and refused.p_adjusted is None
    assert verdict.reason == "regression/suite: 0 questions won, 5 lost (McNemar p = 0.031, level 0.05)"
    four = {key: right or key == "e0" for key, right in suite.items()}
    assert decide(better | {"regression_suite": four}, champion, SETTINGS).promote, "2^-4 shows nothing"
    # To be better there alone is not to be better.
    worse_before = CHAMPION | {"regression_suite": dict.fromkeys(suite, False)}
    assert not decide(CHAMPION | {"regression_suite": suite}, worse_before, SETTINGS).promote


def test_too_few_questions_decide_nothing() -> None:
    few = SETTINGS.model_copy(update={"min_items": N + 1})
    outcome = decide(exam(clean=400, semantic=400, attacker_1=400), CHAMPION, few)
    assert not outcome.promote and "no attack has 401 common questions" in outcome.reason
    # An Attacker with few valid edits is left out of the worst case, and that is said.
    champion = CHAMPION | {"attacker_2": {"1": True}}
    challenger = exam(clean=380, semantic=340, attacker_1=350) | {"attacker_2": {"1": False}}
    outcome = decide(challenger, champion, SETTINGS)
    assert outcome.promote and "left out for fewer than 100 questions: attacker_2 (n = 1)" in outcome.reason


def test_luck_is_shared_out_over_the_tries() -> None:
    assert sum(attempt_alpha(GateSettings(), k) for k in range(1, 5000)) == pytest.approx(0.05, rel=1e-3)
    assert attempt_alpha(GateSettings(repeated_tries="ignore"), 7) == 0.05
    better = exam(clean=380, semantic=308, attacker_1=326)
    assert decide(better, CHAMPION, SETTINGS, attempt=1).promote
    assert not decide(better, CHAMPION, SETTINGS, attempt=9).promote


def test_the_decision_is_the_same_every_time() -> None:
    rng = np.random.default_rng(3)
    sides = [
        {name: {f"{i}": bool(rng.random() < 0.8) for i in range(N)} for name in ("clean", "semantic", "attacker_1")}
        for _ in range(2)
    ]
    assert decide(sides[0], sides[1], SETTINGS) == decide(sides[0], sides[1], SETTINGS)


def test_what_was_not_asked_alike_is_not_compared() -> None:
    with pytest.raises(GateError, match="only one has attacker_1"):
        decide(exam(clean=1, semantic=1), CHAMPION, SETTINGS)
    with pytest.raises(GateError, match="semantic: 1 questions were asked of one side only"):
        decide(CHAMPION | {"semantic": {f"{i}": True for i in range(N - 1)}}, CHAMPION, SETTINGS)
    with pytest.raises(GateError, match="no clean accuracy"):
        decide(exam(semantic=1), None, SETTINGS)
    twice = [Item("clean", "1", "a", "count", "A", ("A",)), Item("clean", "1", "b", "count", "A", ("B",))]
    with pytest.raises(GateError, match="appears twice"):
        exam_of(twice)
    assert exam_of(twice[:1]) == {"clean": {"1": True}}


def test_the_gate_is_seldom_wrong() -> None:
    """The benchmark in small: 60 challengers a kind (`benchmarks/gate.py` does 2,000)."""
    from benchmarks.gate import SCENARIOS, simulate

    rng = np.random.default_rng(1)
    promoted = {
        scenario: sum(
            decide(challenger, champion, SETTINGS).promote
            for champion, challenger in (simulate(rng, 600, 0.97, SCENARIOS[scenario], 0) for _ in range(60))
        )
        for scenario in ("equal", "5 points better under every attack", "the same, and 3 points lost on clean")
    }
    assert promoted["equal"] <= 6
    assert promoted["5 points better under every attack"] >= 42
    assert promoted["the same, and 3 points lost on clean"] <= 6


def item(condition: str, question: str, sample: str, *, right: bool) -> Item:
    return Item(condition, question, sample, "count", "A", ("A",) if right else ("B",))


def test_edits_of_one_question_are_one_pair_of_the_regression_suite() -> None:
    """Five edits of one question that are lost together show no more than one of them."""
    suite = {f"e{k}": "the same" if k < 5 else f"q{k}" for k in range(20)}
    before = exam_of([item("regression_suite", key, key, right=True) for key in suite], suite)
    after = exam_of([item("regression_suite", key, key, right=int(key[1:]) >= 5) for key in suite], suite)
    assert len(before["regression_suite"]) == 16
    better = exam(clean=380, semantic=340, attacker_1=350)
    verdict = decide(better | after, CHAMPION | before, SETTINGS)
    line = next(test for test in verdict.tests if test.name == "regression/suite")
    assert (line.n, line.p_value, line.passed) == (16, 0.5, True)
    apart = {key: key for key in suite}
    pairs = [
        exam_of([item("regression_suite", k, k, right=int(k[1:]) >= 5 or all_) for k in suite], apart)
        for all_ in (0, 1)
    ]
    assert not decide(better | pairs[0], CHAMPION | pairs[1], SETTINGS).promote, "five questions do: 2^-5"
    mixed = exam_of([item("regression_suite", key, key, right=key != "e3") for key in suite], suite)
    assert not mixed["regression_suite"]["the same"], "right is who is right in all edits"


def test_the_fixed_exam_is_a_condition_and_no_attack() -> None:
    """Better on this edition's questions, and worse on the first edition's: what data with wrong labels would teach."""
    better = exam(clean=380, semantic=340, attacker_1=350)
    asked = [
        [item(c, f"{i}", f"{i}", right=i < right) for c in ("clean", "unseen") for i in range(40)] for right in (40, 20)
    ]
    fixed = [{"fixed_exam": right_throughout(items)} for items in asked]
    assert sum(fixed[1]["fixed_exam"].values()) == 20
    verdict = decide(better | fixed[1], CHAMPION | fixed[0], SETTINGS)
    assert not verdict.promote
    assert verdict.reason == "regression/fixed_exam: 0 questions won, 20 lost (McNemar p = 9.5e-07, level 0.05)"
    assert decide(better | fixed[0], CHAMPION | fixed[0], SETTINGS).promote
    worst = next(test for test in verdict.tests if test.name == "superior/worst_case")
    assert worst.passed, "it is not among the attacks"
    one_wrong = right_throughout([item("clean", "1", "1", right=True), item("unseen", "1", "2", right=False)])
    assert one_wrong == {"1": False}
