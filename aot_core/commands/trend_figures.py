"""The figures of an edition by the names that `aot trend`, its page, MLflow's run and Prefect's artifact use."""

from collections.abc import Mapping

from aot_core.contracts.evaluate import CLEAN, REGRESSION_SUITE
from aot_core.contracts.series import EditionEnd

EXAM_CLEAN, EXAM_WORST = "fixed exam, clean", "fixed exam, worst case"
OWN_CLEAN, OWN_WORST, SUITE = "clean", "worst case", "regression suite"
OWN_ATTACKERS, POOL, FLIPS = "own Attackers", "the pool's Attackers", "flips"
NAMES = (EXAM_CLEAN, EXAM_WORST, OWN_CLEAN, OWN_WORST, OWN_ATTACKERS, POOL, SUITE, FLIPS)
"""Of an edition's figures, in the order of the table. Worst cases all, but clean and suite; flips are the share wrong
on the edited picture of the questions right on the clean one, under the attack that has most."""


def edition_figures(end: EditionEnd) -> dict[str, float | None]:
    """The figures of an edition by the names that the page and MLflow's run use, in percent."""
    attacks = [share for name, share in end.exam.items() if name != CLEAN]
    shares = {
        EXAM_CLEAN: end.exam.get(CLEAN),
        EXAM_WORST: min(attacks, default=None),
        OWN_CLEAN: end.figures.get(f"strict/{CLEAN}"),
        OWN_WORST: end.figures.get("worst"),
        OWN_ATTACKERS: _least(end.figures, "strict/attacker_"),
        POOL: _least(end.figures, "strict/adversary_"),
        SUITE: end.figures.get(f"strict/{REGRESSION_SUITE}"),
        FLIPS: max((value for name, value in end.figures.items() if name.startswith("flips/")), default=None),
    }
    return {name: None if share is None else 100 * share for name, share in shares.items()}


def _least(figures: Mapping[str, float], prefix: str) -> float | None:
    return min((value for name, value in figures.items() if name.startswith(prefix)), default=None)
