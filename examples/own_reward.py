"""A reward of your own for the Defender: a function of a batch, one finite number for each answer.

    .venv/bin/python examples/own_reward.py                                       # score two answers
    PYTHONPATH=examples .venv/bin/aot run configs/smoke.toml --home smoke-home \\
        --set 'defender_round.rewards=[{name="accuracy", weight=0.8}, {name="own_reward:brief", weight=0.2}]'

The stage's process must be able to import the module. `rewards.parquet` in the artifact has a column for it.
"""

from collections.abc import Sequence

from aot_core.defender.rewards import Answered


def brief(batch: Sequence[Answered]) -> list[float]:
    """1 for an answer of at most 8 tokens, falling to 0 at 32."""
    return [min(1.0, max(0.0, (32 - answered.tokens) / 24)) for answered in batch]


def main() -> None:
    short = Answered(completion=r"\boxed{A}", answer="A", options=("yes", "no"), tokens=4, finished=True)
    long = Answered(
        completion=r"I think that it is \boxed{A}", answer="A", options=("yes", "no"), tokens=20, finished=True
    )
    for answered, reward in zip((short, long), brief([short, long]), strict=True):
        print(f"{answered.tokens:2d} tokens: {reward:.2f}")


if __name__ == "__main__":
    main()
