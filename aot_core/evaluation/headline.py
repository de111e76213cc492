"""The headline figures: the worst case, how it has moved, and the others.

The worst case is the lowest strict accuracy over the attacks. A later Defender meets more Attackers than
an earlier one. So changes are reported on the attacks that both have met: else a new Attacker would look like a loss.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from aot_core.contracts.evaluate import APART, CLEAN, REGRESSION_SUITE, WORST_OF_N, EvaluateOutputs
from aot_core.contracts.promotion import Decision, GateTest
from aot_core.contracts.summary import CampaignSummary
from aot_core.evaluation.charts import Evaluations, conditions_of, label_of

WORST_TESTS = ("superior/worst_case", "floor/worst_case")
"""The gate's lines about the worst case: against the champion, or, where there is none, against the base model."""


@dataclass(frozen=True)
class Figure:
    """A strict accuracy with its 95 % interval, all in percent."""

    value: float
    low: float
    high: float
    n: int

    @property
    def text(self) -> str:
        return f"{self.value:.1f}"


@dataclass(frozen=True)
class Movement:
    """A change in points, and since when."""

    since: str
    points: float
    note: str = ""

    @property
    def colour(self) -> str:
        """The page's class: up, down, or soft where nothing changed."""
        return "up" if self.points > 0.05 else "down" if self.points < -0.05 else "soft"

    @property
    def text(self) -> str:
        return f"{self.points:+.1f} {self.since}" + (f" ({self.note})" if self.note else "")


@dataclass(frozen=True)
class Tile:
    """A headline and how it has moved."""

    label: str
    now: Figure
    note: str = ""
    movements: tuple[Movement, ...] = ()


@dataclass(frozen=True)
class CampaignChange:
    """A condition in the last campaign and in this one."""

    label: str
    then: Figure
    now: Figure

    @property
    def points(self) -> float:
        return self.now.value - self.then.value

    @property
    def overlap(self) -> bool:
        """Whether the intervals overlap; the two campaigns need not share a question, so nothing is paired."""
        return self.then.low <= self.now.high and self.now.low <= self.then.high


def figure(outputs: EvaluateOutputs, condition: str) -> Figure:
    """A condition's accuracy in percent."""
    value, low, high = (100 * table[condition] for table in (outputs.strict, outputs.low, outputs.high))
    return Figure(value, low, high, outputs.n[condition])


def attacks_of(outputs: EvaluateOutputs) -> list[str]:
    """The conditions that count in the worst case: neither the clean scenes, nor benchmarks, nor the regression
    suite."""
    return [name for name in conditions_of({0: outputs}) if name not in APART]


def worst_of(outputs: EvaluateOutputs, among: Mapping[str, object] | None = None) -> str:
    """The attack under which the Defender is right least often, the clean scenes where there is none.

    Args:
        among: only attacks that are named here count; all of them unless given.
    """
    names = [name for name in attacks_of(outputs) if among is None or name in among]
    return min(names, key=lambda name: outputs.strict[name], default=CLEAN)


def spoken(condition: str) -> str:
    """ "Attacker 2" or "semantic distractors", as it stands in a sentence."""
    if condition == CLEAN:
        return "clean scenes"
    label = label_of(condition)
    return label if label != condition or condition in APART else f"{label} distractors"


def worst_tile(evaluations: Evaluations, decision: Decision | None) -> Tile | None:
    """The worst case, how it has moved since the last round and since the start, the attack that gained most, and the
    gate's own difference to the champion. None before anything was evaluated under attack."""
    if not evaluations or not attacks_of(evaluations[max(evaluations)]):
        return None
    last_round = max(evaluations)
    last = evaluations[last_round]
    worst = worst_of(last)
    movements: list[Movement] = []
    earlier = sorted(number for number in evaluations if number < last_round)
    for number in dict.fromkeys([*earlier[-1:], *earlier[:1]]):
        before = evaluations[number]
        name = worst_of(before, last.strict)
        common = worst_of(last, before.strict)
        if CLEAN in (name, common):
            continue
        points = 100 * (last.strict[common] - before.strict[name])
        when = f"since round {number}" if number else "since the warm start"
        movements.append(Movement(when, points, f"then {spoken(name)}"))
    if earlier and (fall := largest_fall(evaluations[earlier[-1]], last)):
        movements.append(fall)
    if test := gate_test(decision):
        movements.append(_against(test, decision))
    return Tile("worst case", figure(last, worst), f"under {spoken(worst)}", tuple(movements))


def largest_fall(before: EvaluateOutputs, after: EvaluateOutputs) -> Movement | None:
    """The attack that a round lost most to, None where it lost to none."""
    falls = {name: after.strict[name] - before.strict[name] for name in attacks_of(after) if name in before.strict}
    name = min(falls, key=lambda attack: falls[attack], default=CLEAN)
    if name == CLEAN or falls[name] >= 0:
        return None
    return Movement(f"under {spoken(name)} since the last round", 100 * falls[name], "the largest fall")


def gate_test(decision: Decision | None) -> GateTest | None:
    """The gate's line about the worst case, where it has one with a difference."""
    tests = decision.tests if decision else ()
    return next((test for test in tests if test.name in WORST_TESTS and test.difference is not None), None)


def rival(decision: Decision) -> str:
    """Whom the gate compared with, in words."""
    return f"champion version {decision.champion}" if decision.champion else "the base model"


def _against(test: GateTest, decision: Decision | None) -> Movement:
    assert decision is not None and test.difference is not None
    note = "" if test.low is None else f"lower bound {100 * test.low:+.1f}"
    return Movement(f"against {rival(decision)}", 100 * test.difference, note)


def tiles(evaluations: Evaluations, decision: Decision | None = None) -> list[Tile]:
    """The worst case first, then every condition of the last evaluation, with what has changed since it was first
    measured."""
    if not evaluations:
        return []
    first_tile = worst_tile(evaluations, decision)
    last = evaluations[max(evaluations)]
    found = [first_tile] if first_tile else []
    names = {
        CLEAN: "clean scenes",
        REGRESSION_SUITE: "on the regression suite",
        WORST_OF_N: "on the worst of n edits a scene",
    }
    for name in conditions_of({0: last}):
        measured = [number for number in sorted(evaluations) if name in evaluations[number].strict]
        movements: tuple[Movement, ...] = ()
        if len(measured) > 1:
            points = 100 * (last.strict[name] - evaluations[measured[0]].strict[name])
            since = f"since round {measured[0]}" if measured[0] else "since the warm start"
            movements = (Movement(since, points),)
        found.append(Tile(names.get(name, f"under {spoken(name)}"), figure(last, name), movements=movements))
    return found


def changes_since(previous: CampaignSummary | None, before: Evaluations, after: Evaluations) -> list[CampaignChange]:
    """What two campaigns' last Defenders score, condition by condition, the worst cases first. Attackers are left out:
    those of two campaigns are different ones."""
    if previous is None or not before or not after:
        return []
    then, now = before[max(before)], after[max(after)]
    rows = [CampaignChange("worst case", figure(then, worst_of(then)), figure(now, worst_of(now)))]
    common = [n for n in conditions_of({0: now}) if n in then.strict and not n.startswith(("attacker_", "adversary_"))]
    return rows + [CampaignChange(spoken(name), figure(then, name), figure(now, name)) for name in common]
