r"""The Defender's verifiable rewards: terms that score a batch of answers, and their weighted sum.

The paper's reward (arXiv 2602.22227, the public repository's function) is 0.8 `accuracy` + 0.2 `format`: 0.8 for the
right letter, however it is said, and 0.2 more if it stands in exactly `\boxed{LETTER}`. A term is a function from a
batch of `Answered` to one finite score an answer; a config may name its own as `package.module:function`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from aot_core.answers import extract_letter, is_exactly_boxed, letter_of, without_thoughts
from aot_core.contracts.defender_round import DefenderRoundConfig
from aot_core.contracts.functions import import_function
from aot_core.contracts.protocols import Completion
from aot_core.contracts.scene import LETTERS
from aot_core.rl.reward_terms import checked

ACCURACY_REWARD = 0.8
FORMAT_REWARD = 0.2


@dataclass(frozen=True)
class Answered:
    """An answer and what it is judged by."""

    completion: str
    """Raw text."""
    answer: str
    """The right option's letter."""
    options: tuple[str, ...]
    """The options' texts, A first."""
    tokens: int
    """Length of the answer, with the token that ends it."""
    finished: bool
    """Whether it ended by itself, not at the limit."""
    prompt: str = ""
    """The question as it was asked."""

    @property
    def letters(self) -> str:
        return LETTERS[: len(self.options)]

    @property
    def said(self) -> Completion:
        """The completion, with whether the limit cut it off."""
        return Completion(self.completion, cut_off=not self.finished)


Term = Callable[[Sequence[Answered]], Sequence[float]]


def defender_reward(completion: str, answer: str, letters: str = LETTERS) -> float:
    r"""The paper's: 0.8 if the extracted letter is `answer`, 1.0 if it also stands in exactly `\boxed{LETTER}`, else 0.

    Args:
        completion: raw text.
        answer: the right option's letter.
        letters: the letters on offer.
    """
    if extract_letter(completion, letters) != answer:
        return 0.0
    return ACCURACY_REWARD + (FORMAT_REWARD if is_exactly_boxed(completion, answer) else 0.0)


def is_right(answered: Answered) -> bool:
    r"""Whether the answer gives the right option, by its letter or its text, as everyone reads it (`aot_core.answers`).

    `\boxed{Yes}` is how yes/no benchmarks ask. What was only thought, or cut off at the limit, is no answer.
    """
    return letter_of(answered.said, answered.options) == answered.answer


def is_well_formed(answered: Answered) -> bool:
    r"""Whether the right option stands in exactly the box asked for: `\boxed{A}`, or `\boxed{Yes}` to yes/no."""
    if not is_right(answered):
        return False
    if is_exactly_boxed(answered.said, answered.answer):
        return True
    word = answered.options[LETTERS.index(answered.answer)].lower()
    yes_no = {option.lower() for option in answered.options} == {"yes", "no"}
    return yes_no and f"\\boxed{{{word.capitalize()}}}" in (without_thoughts(answered.said) or "")


def accuracy(batch: Sequence[Answered]) -> list[float]:
    return [float(is_right(answered)) for answered in batch]


def well_formed(batch: Sequence[Answered]) -> list[float]:
    return [float(is_well_formed(answered)) for answered in batch]


def length(limit: int) -> Term:
    """-|y| / limit: the shorter the better."""
    return lambda batch: [-answered.tokens / limit for answered in batch]


def overlong(limit: int, buffer: int) -> Term:
    """DAPO's soft overlong punishment (arXiv 2503.14476, equation 13): 0 up to limit - buffer tokens, then falling
    to -1 at the limit; -1 for an answer that the limit cut off."""

    def score(answered: Answered) -> float:
        if not answered.finished:
            return -1.0
        return float(np.clip((limit - buffer - answered.tokens) / buffer, -1.0, 0.0))

    return lambda batch: [score(answered) for answered in batch]


def build_terms(config: DefenderRoundConfig) -> dict[str, Term]:
    """The config's terms by name, each checked: raises ValueError for a function that is not there."""
    known = {
        "accuracy": accuracy,
        "format": well_formed,
        "length": length(config.max_completion_tokens),
        "overlong": overlong(config.max_completion_tokens, config.overlong_buffer),
    }
    if len({term.name for term in config.rewards}) != len(config.rewards):
        raise ValueError("defender_round.rewards names a term twice; add up its weights")
    return {
        term.name: checked(
            term.name,
            known.get(term.name) or import_function(term.name, "defender_round.rewards"),
            config.reward_seconds,
            field="defender_round.reward_seconds",
            noun="answer",
            told=lambda answered: repr(answered.completion),
        )
        for term in config.rewards
    }
