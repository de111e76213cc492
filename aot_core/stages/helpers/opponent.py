"""A Defender behind an OpenAI-compatible endpoint, as an Attacker's opponent.

    images, questions -> `Ask`s -> `OpenAIEngine` (bounded concurrency, retries) -> completions

The Attacker's side knows it as an `Answerer`, the evaluation's engine knows of no Attacker; they meet here.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL.Image import Image

from aot_core.contracts.attacker_round import OpponentSettings
from aot_core.contracts.base import sha256_of
from aot_core.contracts.scene import Question
from aot_core.evaluation.engines.openai_engine import OpenAIEngine
from aot_core.evaluation.engines.protocol import Ask, EngineError, Journal, ask_all


class EndpointDefender:
    """Answers by an endpoint (implements `contracts.protocols.Answerer`)."""

    def __init__(self, settings: OpponentSettings, scratch: Path) -> None:
        """
        Args:
            scratch: a folder for the answers of the call in progress.

        Raises EngineError where the environment lacks the key that the settings name.
        """
        self._engine = OpenAIEngine(settings, max_new_tokens=settings.max_new_tokens, temperature=0.0, seed=0)
        self._scratch = scratch
        scratch.mkdir(parents=True, exist_ok=True)

    def answer(
        self, images: Sequence[Image], questions: Sequence[Question], *, samples: int, temperature: float, seed: int
    ) -> list[list[str]]:
        """See `Answerer.answer`; each sample is a request and has a seed of its own, which the endpoint may heed.

        Raises ValueError where the sequences differ in length, and EngineError where the endpoint is down or refuses.
        """
        for image in images:  # Pillow reads a file on first use, which the engine's threads must not do all at once
            image.load()
        asks = [
            Ask(sha256_of([seed, number]), question.prompt, partial(_alone, image), samples)
            for number, (image, question) in enumerate(zip(images, questions, strict=True))
        ]
        self._engine.temperature = temperature
        with (
            TemporaryDirectory(dir=self._scratch) as folder,
            Journal(Path(folder) / "answers.jsonl", self._engine.identity) as journal,
        ):
            said = ask_all(self._engine, asks, journal)
        return [list(said[ask.key]) for ask in asks]

    def letter_logprobs(self, images: Sequence[Image], questions: Sequence[Question]) -> list[dict[str, float]]:
        """Raises EngineError: an endpoint gives none, and `AttackerRoundConfig` refuses rewards that need them."""
        del images, questions
        raise EngineError(
            f"{self._engine.settings.url} gives no letters' probabilities; set reward.efficacy to share or "
            "consecutive, and reward.dense to 0"
        )


def _alone(image: Image) -> Sequence[Image]:
    return (image,)
