"""Attack a model of your own: anything that answers a question about a picture.

    .venv/bin/python examples/attack_your_model.py

Replace `MyModel.answer` by a call to your model. Nothing is trained.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL.Image import Image

from aot_core.attacker.curation import ask_about, make_edits
from aot_core.attacker.editing import Attacker
from aot_core.attacker.scenes import Target
from aot_core.attacker.tactics import AttackPolicy
from aot_core.contracts.curate import CurateConfig
from aot_core.contracts.scene import Question
from aot_core.defender.answering import Defender
from aot_core.worlds.probe import sample_of

SCENE = Path(__file__).parents[1] / "docs" / "probe-scene.png"


class MyModel:
    """Implements `aot_core.contracts.protocols.Answerer`. Here it wraps the shipped tiny model."""

    def __init__(self) -> None:
        self.inner = Defender.load("aot-tiny-vl")

    def answer(
        self, images: Sequence[Image], questions: Sequence[Question], *, samples: int, temperature: float, seed: int
    ) -> list[list[str]]:
        r"""`samples` raw answers to each question, such as `\boxed{A}`. `question.text` and `question.options` say what
        is asked."""
        return self.inner.answer(images, questions, samples=samples, temperature=temperature, seed=seed)


def main() -> None:
    sample, picture = sample_of(SCENE, "Is there a red ring?", ["yes", "no"], "yes", boxes=[])
    config = CurateConfig(edits_per_scene=32, samples=3, temperature=1.0)
    attacker = Attacker.load("aot-tiny-edit")
    target = Target(sample, picture)
    valid, funnel = make_edits(attacker, AttackPolicy(), [target], config, np.random.default_rng(0))
    asked = sorted(ask_about(MyModel(), valid, config), key=lambda edit: edit.correct)
    print(f"{funnel.edited} edits, {funnel.valid} leave the truth alone; the most deceptive:")
    for edit in asked[:5]:
        print(f"  {edit.proposal.instruction:60} answers {' '.join(answer or '?' for answer in edit.answers)}")


if __name__ == "__main__":
    main()
