"""The effectiveness filter: does a pair fool the base Defender, which is right while the scene is clean?

The Defender comes as an `Answerer`; this side of the project knows none.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image

from aot_core.answers import letter_of
from aot_core.contracts.prepare_data import EffectivenessSettings
from aot_core.contracts.protocols import Answerer
from aot_core.contracts.scene import Question


@dataclass(frozen=True)
class Effectiveness:
    """Shares of right answers, 0..1, on the clean and on the edited image."""

    clean: float
    edited: float

    @property
    def outcome(self) -> str:
        """ "effective", or why not."""
        if self.clean < 1:
            return "wrong_when_clean"
        return "effective" if self.edited == 0 else "withstood"


def measure_effectiveness(
    answerer: Answerer,
    cleans: Sequence[Image.Image],
    editeds: Sequence[Image.Image],
    questions: Sequence[Question],
    settings: EffectivenessSettings,
    seed: int,
) -> list[Effectiveness]:
    """Ask `settings.samples` times about each image of each pair. The same seed gives the same shares."""
    shares = []
    for turn, images in enumerate((cleans, editeds)):
        completions = answerer.answer(
            images, questions, samples=settings.samples, temperature=settings.temperature, seed=seed + turn
        )
        shares.append([_share_right(c, q) for c, q in zip(completions, questions, strict=True)])
    return [Effectiveness(clean, edited) for clean, edited in zip(*shares, strict=True)]


def _share_right(completions: Sequence[str], question: Question) -> float:
    return sum(letter_of(text, question.options) == question.answer for text in completions) / len(completions)
