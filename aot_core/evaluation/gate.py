"""May a new Defender lead? A rule on two evaluations of the same questions, separate from everything that acts on it.

    hard stops            nothing can make up for them: unreadable answers, missing figures, a gap in the lineage,
                          test questions seen in training
    superior/...          the challenger's worst case over the attacks is better: paired bootstrap of the difference of
                          the lowest shares, and McNemar's exact test on "right under every attack"
    not_worse/...         clean, and on every benchmark: the lower bound of the paired difference lies above the margin
    regression/...        no single attack or benchmark is significantly worse, after Holm's correction
    regression/suite      nor is the regression suite, whatever its size: a test of its own, at the whole of alpha
    regression/fixed_exam nor, in a series, is the first edition's exam: data that are wrong cannot vouch for themselves

Without a champion the base model takes its place, with two lines that compare the observed figures only:

    floor/clean           clean accuracy is at most `clean_margin` below the base's
    floor/worst_case      the lowest accuracy over the attacks is not below the base's

All must hold, so a challenger that is no better is promoted with a chance of alpha at most, whatever the number of
lines (an intersection-union test needs no correction); Holm's is for the last family, where each line alone could
refuse; and what is left of alpha shrinks with every challenger that one champion has met (`repeated_tries`).
`benchmarks/gate.py` measures all of it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from aot_core.contracts.evaluate import APART, CLEAN, FIXED_EXAM, REGRESSION_SUITE
from aot_core.contracts.promotion import BENCHMARK_PREFIX, GateSettings, GateTest, HardStop
from aot_core.evaluation.items import Item
from aot_core.evaluation.statistics import holm, mcnemar, paired_difference, paired_resamples, worst_case_resamples

_ROUNDING = 1e-9
"""Shares that are equal on paper may differ by so much."""

Exam = Mapping[str, Mapping[str, bool]]
"""Condition to question to whether it was answered right, every time it was asked."""


class GateError(ValueError):
    """Two evaluations that cannot be compared. The message says why, and what to do."""


@dataclass(frozen=True)
class GateOutcome:
    """What the rule says."""

    promote: bool
    reason: str
    alpha: float
    tests: tuple[GateTest, ...] = ()
    stops: tuple[HardStop, ...] = field(default=())


def exam_of(items: Sequence[Item], suite: Mapping[str, str] | None = None) -> dict[str, dict[str, bool]]:
    """Answered items by condition and question.

    Args:
        suite: sample_id to question, of the regression suite. Several edits of one question are no independent pairs,
            and McNemar's test counts pairs: such a question is right where all of its edits are.

    Raises GateError where a question stands twice in another condition.
    """
    exam: dict[str, dict[str, bool]] = {}
    for item in items:
        answers = exam.setdefault(item.condition, {})
        if item.condition == REGRESSION_SUITE and suite is not None:
            question = suite[item.sample_id]
            answers[question] = answers.get(question, True) and item.strict
            continue
        if item.item_id in answers:
            raise GateError(f"question {item.item_id} appears twice in condition {item.condition}; evaluate again")
        answers[item.item_id] = item.strict
    return exam


def right_throughout(items: Sequence[Item]) -> dict[str, bool]:
    """Question to whether it was answered right in every condition: one pair a question, however often it is asked."""
    answers: dict[str, bool] = {}
    for item in items:
        answers[item.item_id] = answers.get(item.item_id, True) and item.strict
    return answers


def attempt_alpha(settings: GateSettings, attempt: int) -> float:
    """The level of the superiority tests for the k-th challenger of a champion: alpha / (k (k + 1)) adds up to alpha
    over all k. The other tests keep alpha: what they guard against does not become likelier by trying."""
    return settings.alpha / (attempt * (attempt + 1)) if settings.repeated_tries == "spend" else settings.alpha


def decide(
    challenger: Exam,
    champion: Exam | None,
    settings: GateSettings,
    stops: Sequence[HardStop] = (),
    attempt: int = 1,
    base: Exam | None = None,
) -> GateOutcome:
    """Whether the challenger may take the champion's place, and why.

    Args:
        challenger: holds `clean`, the attacks' conditions, the regression suite, in a series the fixed exam, and
            benchmarks as `bench/NAME`.
        champion: the same questions under the same conditions; None where there is no champion.
        stops: what was looked into besides the figures.
        attempt: 1-based index of this challenger among those of the champion.
        base: where there is no champion, the base model's answers, which are a floor: the same questions, of benchmarks
            none. None: there is no floor, and whatever no stop holds up may lead.

    Raises GateError where a clean figure is missing, or the two were not asked the same.
    """
    if not challenger.get(CLEAN):
        raise GateError("challenger has no clean accuracy; evaluate it on the clean scenes too")
    alpha, stops = attempt_alpha(settings, attempt), tuple(stops)
    if champion is not None:
        tests = _tests(challenger, champion, settings, alpha)
    else:
        tests = () if base is None else _floor(challenger, base, settings)
    stopped = next((stop for stop in stops if stop.stopped), None)
    failed = next((test for test in tests if not test.passed), None)
    if stopped is not None:
        reason = f"stopped: {stopped.told}"
    elif failed is not None:
        reason = f"{failed.name}: {failed.note}"
    elif champion is None:
        reason = "; ".join(["there is no champion yet", *(test.note for test in tests)])
    else:
        reason = next(test.note for test in tests)
    return GateOutcome(stopped is None and failed is None, reason, alpha, tests, stops)


def _tests(challenger: Exam, champion: Exam, settings: GateSettings, alpha: float) -> tuple[GateTest, ...]:
    _same_questions(challenger, champion)
    benchmarks = [name for name in champion if name.startswith(BENCHMARK_PREFIX)]
    attacks = _attacks(champion)
    usable = [name for name in attacks if len(champion[name]) >= settings.min_items]
    left_out = [f"{name} (n = {len(champion[name])})" for name in attacks if name not in usable]
    margins = {CLEAN: settings.clean_margin} | {
        name: settings.benchmark_margins.get(name.removeprefix(BENCHMARK_PREFIX), settings.benchmark_margin)
        for name in benchmarks
    }
    return (
        *_superiority(challenger, champion, usable, left_out, settings, alpha),
        *(_not_worse(name, challenger[name], champion[name], margin, settings) for name, margin in margins.items()),
        *_regressions(challenger, champion, [*usable, *benchmarks], settings.alpha),
        *_kept(challenger, champion, settings.alpha),
    )


def _attacks(exam: Exam) -> list[str]:
    """The conditions that the worst case is taken over."""
    return [name for name in exam if name not in APART and not name.startswith(BENCHMARK_PREFIX)]


def _floor(challenger: Exam, base: Exam, settings: GateSettings) -> tuple[GateTest, ...]:
    """The first champion's bar, by point estimates: a Defender that is as good as the base may lead."""
    asked = {name: answers for name, answers in challenger.items() if not name.startswith(BENCHMARK_PREFIX)}
    _same_questions(asked, base, "base")
    attacks = _attacks(base)
    # Where no attack has questions enough to tell, as in a demonstration, all of them speak together.
    usable = [name for name in attacks if len(base[name]) >= settings.min_items] or attacks
    clean = _share(challenger[CLEAN]), _share(base[CLEAN])
    margin = f"{100 * settings.clean_margin:g} points"
    lines = [
        GateTest(
            name="floor/clean",
            what=f"clean accuracy is at most {margin} below the base's",
            passed=clean[0] - clean[1] >= -settings.clean_margin - _ROUNDING,
            n=len(base[CLEAN]),
            challenger=clean[0],
            difference=clean[0] - clean[1],
            margin=-settings.clean_margin,
            note=f"clean {clean[0]:.3f} against the base's {clean[1]:.3f}",
        )
    ]
    if usable:
        mine, where = min((_share(challenger[name]), name) for name in usable)
        its, there = min((_share(base[name]), name) for name in usable)
        lines.append(
            GateTest(
                name="floor/worst_case",
                what="its lowest accuracy over the attacks is not below the base's",
                passed=mine >= its,
                n=len({key for name in usable for key in base[name]}),
                challenger=mine,
                difference=mine - its,
                margin=0.0,
                note=f"worst case {mine:.3f} ({where}) against the base's {its:.3f} ({there})",
            )
        )
    return tuple(lines)


_KEPT = {
    REGRESSION_SUITE: ("regression/suite", "it is not significantly worse on what fooled earlier Defenders"),
    FIXED_EXAM: ("regression/fixed_exam", "it is not significantly worse on the series' first exam"),
}
"""What a series keeps to measure by: condition to the name of its line, and the claim."""


def _kept(challenger: Exam, champion: Exam, alpha: float) -> tuple[GateTest, ...]:
    """McNemar, one-sided, with all the questions that there are; nothing where there are none."""
    lines: list[GateTest] = []
    for condition, (name, what) in _KEPT.items():
        before = champion.get(condition)
        if not before:
            continue
        after = challenger[condition]
        lost, won = _discordant(before, after)
        p_value = mcnemar(lost, won, "less")
        lines.append(
            GateTest(
                name=name,
                what=what,
                passed=p_value > alpha,
                n=len(before),
                champion=_share(before),
                challenger=_share(after),
                difference=(won - lost) / len(before),
                p_value=p_value,
                note=f"{won} questions won, {lost} lost (McNemar p = {p_value:.2g}, level {alpha:.3g})",
            )
        )
    return tuple(lines)


def _superiority(
    challenger: Exam, champion: Exam, attacks: list[str], left_out: list[str], settings: GateSettings, alpha: float
) -> tuple[GateTest, ...]:
    """Better where it is weakest: two tests that assume different things, and both must agree."""
    worst, every = "superior/worst_case", "superior/every_attack"
    what = "its lowest accuracy over the attacks is higher"
    every_what = "more questions stay right under every attack"
    aside = f"; left out for fewer than {settings.min_items} questions: {', '.join(left_out)}" if left_out else ""
    if not attacks:
        note = f"no attack has {settings.min_items} common questions, so there is no worst case to compare{aside}"
        return (GateTest(name=worst, what=what, passed=False, n=0, note=note),)
    questions = sorted({key for name in attacks for key in champion[name]})
    asked, before, after = (
        np.array([[float(exam[name].get(key, missing)) for name in attacks] for key in questions])
        for exam, missing in ((_all_true(champion), 0.0), (champion, 0.0), (challenger, 0.0))
    )
    shares = {"champion": before.sum(0) / asked.sum(0), "challenger": after.sum(0) / asked.sum(0)}
    lowest = {who: (attacks[int(np.argmin(values))], float(values.min())) for who, values in shares.items()}
    difference = lowest["challenger"][1] - lowest["champion"][1]
    drawn = worst_case_resamples(asked, before, after, settings.resamples, settings.seed)
    low = float(np.quantile(drawn, alpha))
    told = (
        f"worst case {lowest['challenger'][1]:.3f} ({lowest['challenger'][0]}) against "
        f"{lowest['champion'][1]:.3f} ({lowest['champion'][0]})"
    )
    better = low > 0
    note = f"{told}: {'better' if better else 'not shown to be better'} (lower bound {low:+.3f}, level {alpha:.3g})"
    first = GateTest(
        name=worst,
        what=what,
        passed=better,
        n=len(questions),
        champion=lowest["champion"][1],
        challenger=lowest["challenger"][1],
        difference=difference,
        low=low,
        margin=0.0,
        p_value=(1 + int((drawn <= 0).sum())) / (1 + len(drawn)),
        note=note + aside,
    )
    held_before, held_after = (~((asked > 0) & (right == 0)).any(axis=1) for right in (before, after))
    lost, won = int((held_before & ~held_after).sum()), int((held_after & ~held_before).sum())
    p_value = mcnemar(lost, won, "greater")
    second = GateTest(
        name=every,
        what=every_what,
        passed=p_value <= alpha,
        n=len(questions),
        champion=float(held_before.mean()),
        challenger=float(held_after.mean()),
        difference=(won - lost) / len(questions),
        p_value=p_value,
        note=f"{won} questions won, {lost} lost (McNemar p = {p_value:.2g}, level {alpha:.3g})",
    )
    return first, second


def _not_worse(
    name: str, challenger: Mapping[str, bool], champion: Mapping[str, bool], margin: float, settings: GateSettings
) -> GateTest:
    """Non-inferiority by the more cautious of two lower bounds: Agresti and Min's, and the paired bootstrap's."""
    before, after = list(champion.values()), [challenger[key] for key in champion]
    n = len(before)
    told = f"not_worse/{name.removeprefix(BENCHMARK_PREFIX)}"
    what = f"it loses less than {100 * margin:g} points on {name.removeprefix(BENCHMARK_PREFIX)}"
    if n < settings.min_items:
        note = f"{n} common questions, and {settings.min_items} are needed to decide"
        return GateTest(name=told, what=what, passed=False, n=n, margin=-margin, note=note)
    difference = paired_difference(before, after, 1 - 2 * settings.alpha)
    drawn = paired_resamples(difference.lost, difference.won, n, settings.resamples, settings.seed)
    low = min(difference.low, float(np.quantile(drawn, settings.alpha)))
    passed = low > -margin
    verdict = "within" if passed else "not shown to be within"
    shares = sum(before) / n, sum(after) / n
    return GateTest(
        name=told,
        what=what,
        passed=passed,
        n=n,
        champion=shares[0],
        challenger=shares[1],
        difference=difference.difference,
        low=low,
        margin=-margin,
        note=f"{shares[1]:.3f} against {shares[0]:.3f}: {verdict} {margin:g} (lower bound {low:+.3f})",
    )


def _regressions(challenger: Exam, champion: Exam, names: list[str], alpha: float) -> tuple[GateTest, ...]:
    """No line significantly worse: McNemar, one-sided, Holm's correction over all lines."""
    counts: dict[str, tuple[int, int]] = {}
    for name in names:
        counts[name] = _discordant(champion[name], challenger[name])
    p_values = {name: mcnemar(lost, won, "less") for name, (lost, won) in counts.items()}
    adjusted = holm(p_values)
    return tuple(
        GateTest(
            name=f"regression/{name.removeprefix(BENCHMARK_PREFIX)}",
            what=f"it is not significantly worse on {name.removeprefix(BENCHMARK_PREFIX)}",
            passed=adjusted[name] > alpha,
            n=len(champion[name]),
            champion=sum(champion[name].values()) / len(champion[name]),
            challenger=sum(challenger[name].values()) / len(champion[name]),
            difference=(won - lost) / len(champion[name]),
            p_value=p_values[name],
            p_adjusted=adjusted[name],
            note=f"{won} questions won, {lost} lost (Holm p = {adjusted[name]:.2g})",
        )
        for name, (lost, won) in counts.items()
        if champion[name]
    )


def _discordant(before: Mapping[str, bool], after: Mapping[str, bool]) -> tuple[int, int]:
    """(lost, won): questions that one alone has right."""
    pairs = [(right, after[key]) for key, right in before.items()]
    return sum(a and not b for a, b in pairs), sum(b and not a for a, b in pairs)


def _share(answers: Mapping[str, bool]) -> float:
    return sum(answers.values()) / len(answers)


def _same_questions(challenger: Exam, champion: Exam, rival: str = "champion") -> None:
    if set(challenger) != set(champion):
        different = ", ".join(sorted(set(challenger) ^ set(champion)))
        raise GateError(
            f"challenger and {rival} were measured under different conditions (only one has {different}); "
            "evaluate both on the same set"
        )
    for name, answers in champion.items():
        if answers.keys() != challenger[name].keys():
            odd = len(answers.keys() ^ challenger[name].keys())
            raise GateError(f"{name}: {odd} questions were asked of one side only; evaluate both on the same set")


def _all_true(exam: Exam) -> Exam:
    return {name: dict.fromkeys(answers, True) for name, answers in exam.items()}
