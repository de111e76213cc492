"""May a new Defender lead? A rule on two evaluations, kept apart from everything that acts on it."""

from collections.abc import Mapping

from aot_core.contracts.evaluate import CLEAN

_ROUNDING = 1e-9


def worst_case(strict: Mapping[str, float]) -> tuple[str, float]:
    """The attacked condition with the lowest accuracy, and that accuracy; the clean one where there is no
    other."""
    attacked = {name: value for name, value in strict.items() if name != CLEAN} or dict(strict)
    name = min(attacked, key=lambda condition: attacked[condition])
    return name, attacked[name]


def may_lead(challenger: Mapping[str, float], champion: Mapping[str, float] | None, margin: float) -> tuple[bool, str]:
    """Whether the challenger may take the `champion` alias, and why.

    Args:
        challenger: strict accuracy by condition (0..1); holds `clean`.
        champion: the champion's, measured on the same questions; None where there is no champion.
        margin: the clean accuracy (a share) that the challenger may lose. Its worst case may lose nothing.

    Raises ValueError where a clean figure is missing, or the two were not measured under the same conditions.
    """
    if CLEAN not in challenger:
        raise ValueError("challenger has no clean accuracy; evaluate it on the clean scenes too")
    if champion is None:
        return True, "there is no champion yet"
    if set(challenger) != set(champion):
        different = ", ".join(sorted(set(challenger) ^ set(champion)))
        raise ValueError(
            f"challenger and champion were measured under different conditions (only one has {different}); "
            "evaluate both on the same set"
        )
    name, worst = worst_case(challenger)
    rival_name, rival_worst = worst_case(champion)
    told = f"worst case {worst:.3f} ({name}) against {rival_worst:.3f} ({rival_name})"
    if worst < rival_worst:
        return False, f"{told}: less robust than the champion"
    clean, rival_clean = challenger[CLEAN], champion[CLEAN]
    told += f", clean {clean:.3f} against {rival_clean:.3f}"
    if clean < rival_clean - margin - _ROUNDING:
        return False, f"{told}: loses more than {margin:g} on clean scenes"
    return True, f"{told}: at least as robust, clean within {margin:g}"
