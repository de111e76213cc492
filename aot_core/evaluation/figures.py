"""From answered items to the figures of an evaluation."""

from collections.abc import Mapping, Sequence

from aot_core.contracts.evaluate import APART, CLEAN, EvaluateOutputs
from aot_core.contracts.promotion import BENCHMARK_PREFIX
from aot_core.evaluation.items import Item
from aot_core.evaluation.robustness import calibration_error, changes, changes_by, every_attack, hallucination
from aot_core.evaluation.statistics import proportion


def summarise(items: Sequence[Item], valid: Mapping[str, float]) -> EvaluateOutputs:
    """Strict and single-shot accuracy, intervals and n, by condition and by kind of question.

    Args:
        items: of all conditions.
        valid: share of valid edits of each Attacker condition. An Attacker without a valid edit has an n of 0 and no
            accuracy.

    Raises ValueError where there are no clean items.
    """
    groups: dict[str, list[Item]] = {}
    for item in items:
        groups.setdefault(item.condition, []).append(item)
    if CLEAN not in groups:
        raise ValueError("items hold no clean question; evaluate the clean scenes too")
    strict = {name: proportion([item.strict for item in group]) for name, group in groups.items()}
    single = {name: [right for item in group for right in item.correct] for name, group in groups.items()}
    kinds: dict[str, list[bool]] = {}
    for item in items:
        kinds.setdefault(f"{item.condition}/{item.kind}", []).append(item.strict)
    attacked = {
        name: figure.value
        for name, figure in strict.items()
        if name not in APART and not name.startswith(BENCHMARK_PREFIX)
    }
    edited = {name: groups[name] for name in attacked}
    changed = {name: changes(groups[CLEAN], group) for name, group in edited.items()}
    asked_here = {name: group for name, group in groups.items() if not name.startswith(BENCHMARK_PREFIX)}
    worst = min(attacked, key=lambda name: attacked[name], default=CLEAN)
    return EvaluateOutputs(
        strict={name: figure.value for name, figure in strict.items()},
        low={name: figure.low for name, figure in strict.items()},
        high={name: figure.high for name, figure in strict.items()},
        mean={name: sum(right) / len(right) for name, right in single.items()},
        n={**dict.fromkeys(valid, 0), **{name: figure.n for name, figure in strict.items()}},
        valid=dict(valid),
        kinds={name: sum(right) / len(right) for name, right in sorted(kinds.items())},
        kinds_n={name: len(right) for name, right in sorted(kinds.items())},
        worst=strict[worst].value,
        worst_condition=worst,
        every_attack=every_attack(edited),
        flips=_known({name: change.flipped for name, change in changed.items()}),
        mends=_known({name: change.mended for name, change in changed.items()}),
        changes_by_question=changes_by(lambda item: item.kind, groups[CLEAN], edited),
        changes_by_edit=changes_by(lambda item: item.edit, groups[CLEAN], edited),
        calibration_error=_known({name: calibration_error(group) for name, group in asked_here.items()}),
        hallucination=_known({name: hallucination(group) for name, group in asked_here.items()}),
    )


def _known(figures: Mapping[str, float | None]) -> dict[str, float]:
    return {name: value for name, value in figures.items() if value is not None}
