"""How often is the gate wrong? Simulated challengers of known quality, decided by the gate itself.

    python benchmarks/gate.py [--challengers 2000] [--questions 1000] [--benchmarks 0 3 10]

Each simulated evaluation asks champion and challenger the same questions: clean, three families of distractors, three
Attackers (a tenth of whose edits is invalid), and no, three or all ten benchmarks. Whether an answer is right hangs on
how hard the question is (common to both), on the edit (common to both), and on the Defender (its own): `kinship` is the
common share of the variance. Two fine-tunings of one base share much.
"""

import argparse
from collections import Counter
from collections.abc import Mapping
from math import sqrt
from statistics import NormalDist

import numpy as np

from aot_core.contracts.promotion import GateSettings
from aot_core.evaluation.gate import decide
from aot_core.evaluation.statistics import proportion

ACCURACY = {
    "clean": 0.91,
    "semantic": 0.77,
    "irrelevant": 0.90,
    "unseen": 0.79,
    "attacker_1": 0.87,
    "attacker_2": 0.88,
    "attacker_3": 0.88,
    "bench/pope": 0.80,
    "bench/mmstar": 0.61,
    "bench/blink": 0.55,
    "bench/vstar": 0.77,
    "bench/hrbench4k": 0.72,
    "bench/hrbench8k": 0.70,
    "bench/hallusionbench": 0.68,
    "bench/mmmu": 0.23,
    "bench/realworldqa": 0.69,
    "bench/ai2d": 0.81,
}
"""Strict accuracy of the champion (the README's last round; the paper's table for the benchmarks)."""
BENCHMARKS = [name for name in ACCURACY if name.startswith("bench/")]
ATTACKS = [name for name in ACCURACY if name != "clean" and not name.startswith("bench/")]
SIZES = {
    "bench/pope": 5127,
    "bench/mmstar": 1500,
    "bench/blink": 1901,
    "bench/vstar": 191,
    "bench/hrbench4k": 800,
    "bench/hrbench8k": 800,
    "bench/hallusionbench": 951,
    "bench/mmmu": 900,
    "bench/realworldqa": 765,
    "bench/ai2d": 3088,
}
"""Questions of the public files; every other condition has as many as the command line says."""
SCENARIOS: dict[str, dict[str, float]] = {
    "equal": {},
    "5 points better under every attack": dict.fromkeys(ATTACKS, 0.05),
    "the same, and 3 points lost on clean": {**dict.fromkeys(ATTACKS, 0.05), "clean": -0.03},
    "the same, and 5 points lost on one benchmark": {**dict.fromkeys(ATTACKS, 0.05), "bench/blink": -0.05},
}
INVALID = 0.1


def simulate(
    rng: np.random.Generator, questions: int, kinship: float, gains: Mapping[str, float], benchmarks: int
) -> tuple[dict[str, dict[str, bool]], dict[str, dict[str, bool]]]:
    """The right answers of a champion and a challenger, under every attack and on the first so many benchmarks."""
    names = [name for name in ACCURACY if name not in BENCHMARKS[benchmarks:]]
    hardness = rng.standard_normal(questions)
    champion: dict[str, dict[str, bool]] = {}
    challenger: dict[str, dict[str, bool]] = {}
    for name in names:
        # A benchmark has questions of its own; what an edit adds to a question's hardness is common to both.
        n = SIZES.get(name, questions)
        hard = hardness if n == questions else rng.standard_normal(n)
        common = sqrt(0.7) * hard + sqrt(0.3) * rng.standard_normal(n)
        asked = rng.random(n) >= (INVALID if name.startswith("attacker") else 0.0)
        for exam, gain in ((champion, 0.0), (challenger, gains.get(name, 0.0))):
            own = rng.standard_normal(n)
            level = NormalDist().inv_cdf(ACCURACY[name] + gain)
            right = sqrt(kinship) * common + sqrt(1 - kinship) * own < level
            exam[name] = {str(i): bool(right[i]) for i in np.flatnonzero(asked)}
    return champion, challenger


def measure(challengers: int, questions: int, kinship: float, scenario: str, benchmarks: int) -> str:
    """A line of the table: the share promoted with its 95 % interval, and what stopped the others."""
    settings = GateSettings(resamples=1000)
    rng = np.random.default_rng([7, questions, int(1000 * kinship)])
    promoted: list[bool] = []
    stopped: Counter[str] = Counter()
    differing = 0.0
    for _ in range(challengers):
        champion, challenger = simulate(rng, questions, kinship, SCENARIOS[scenario], benchmarks)
        outcome = decide(challenger, champion, settings)
        promoted.append(outcome.promote)
        stopped.update([outcome.reason.partition(":")[0]] if not outcome.promote else [])
        clean = champion["clean"]
        differing += sum(right != challenger["clean"][key] for key, right in clean.items()) / len(clean) / challengers
    figure = proportion(promoted)
    reasons = ", ".join(f"{name} {100 * count / challengers:.1f}" for name, count in stopped.most_common(3))
    return (
        f"| {scenario} | {kinship:.2f} | {100 * differing:.1f} | {benchmarks} | "
        f"{100 * figure.value:.1f} ({100 * figure.low:.1f} to {100 * figure.high:.1f}) | {reasons} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--challengers", type=int, default=2000)
    parser.add_argument("--questions", type=int, default=1000)
    parser.add_argument("--kinship", type=float, nargs="+", default=[0.90, 0.97])
    parser.add_argument("--benchmarks", type=int, nargs="+", default=[0, 3, len(BENCHMARKS)], help="how many are asked")
    parser.add_argument("--scenarios", nargs="+", choices=SCENARIOS, default=list(SCENARIOS), metavar="TEXT")
    arguments = parser.parse_args()
    print(f"{arguments.challengers} challengers a line, {arguments.questions} questions a condition, default margins")
    print("| challenger is | kinship | clean answers that differ, % | benchmarks | promoted, % | first stopped by, % |")
    print("|---|---|---|---|---|---|")
    for benchmarks in arguments.benchmarks:
        for kinship in arguments.kinship:
            for scenario in arguments.scenarios:
                if benchmarks or "benchmark" not in scenario:
                    line = measure(arguments.challengers, arguments.questions, kinship, scenario, benchmarks)
                    print(line, flush=True)


if __name__ == "__main__":
    main()
