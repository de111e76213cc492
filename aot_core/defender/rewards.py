r"""The Defender's verifiable rewards: terms that score a batch of answers, and their weighted sum.

The paper's reward (arXiv 2602.22227, the public repository's function) is 0.8 `accuracy` + 0.2 `format`: 0.8 for the
right letter, however it is said, and 0.2 more if it stands in exactly `\boxed{LETTER}`. A term is a function from a
batch of `Answered` to one finite score an answer; a config may name its own as `package.module:function`.
"""

import re
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np

from aot_core.contracts.code import demand_allowed
from aot_core.contracts.defender_round import DefenderRoundConfig, RewardTerm
from aot_core.contracts.errors import ToldError
from aot_core.contracts.scene import LETTERS
from aot_core.data.answers import extract_letter, is_exactly_boxed

ACCURACY_REWARD = 0.8
FORMAT_REWARD = 0.2

_WORD_BOX = re.compile(r"boxed[^A-Za-z]*([A-Za-z]+)")


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


Term = Callable[[Sequence[Answered]], Sequence[float]]


class RewardError(ValueError):
    """A reward term gave no usable scores. The message names the term and the answer."""


class RewardTimeoutError(ToldError, RuntimeError):
    """A reward term did not come back. Trying again may help: it may wait for something outside."""


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
    r"""Whether the answer gives the right option: by its letter or, to a yes/no question, by its word in a box.

    `\boxed{Yes}` is how yes/no benchmarks ask; a letter decides where there is one.
    """
    letter = extract_letter(answered.completion, answered.letters)
    if letter is not None:
        return letter == answered.answer
    word = _right_word(answered)
    return word is not None and _boxed_word(answered) == word


def is_well_formed(answered: Answered) -> bool:
    r"""Whether the right option stands in exactly the box asked for: `\boxed{A}`, or `\boxed{Yes}` to yes/no."""
    if not is_right(answered):
        return False
    if is_exactly_boxed(answered.completion, answered.answer):
        return True
    word = _right_word(answered)
    return word is not None and f"\\boxed{{{word.capitalize()}}}" in answered.completion


def _right_word(answered: Answered) -> str | None:
    """The right option of a yes/no question, in lower case."""
    options = [option.lower() for option in answered.options]
    return options[LETTERS.index(answered.answer)] if set(options) == {"yes", "no"} else None


def _boxed_word(answered: Answered) -> str | None:
    words = {word.lower() for word in _WORD_BOX.findall(answered.completion)}
    return words.pop() if len(words) == 1 else None


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
        term.name: checked(term.name, known.get(term.name) or _imported(term), config.reward_seconds)
        for term in config.rewards
    }


def _imported(term: RewardTerm) -> Term:
    demand_allowed([term.name])
    module, _, name = term.name.partition(":")
    try:
        return getattr(import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"defender_round.rewards: {term.name!r} cannot be imported: {error}") from error


def checked(name: str, term: Term, seconds: float) -> Term:
    """The term, held to its contract: in time, one finite score an answer. Raises RewardError, RewardTimeoutError."""

    def score(batch: Sequence[Answered]) -> list[float]:
        scores = _in_time(name, term, batch, seconds)
        if len(scores) != len(batch):
            raise RewardError(f"reward {name!r} gave {len(scores)} scores for {len(batch)} answers; give one for each")
        for value, answered in zip(scores, batch, strict=True):
            if not np.isfinite(value):
                raise RewardError(f"reward {name!r} is {value} for the answer {answered.completion!r}; give a number")
        return [float(value) for value in scores]

    return score


def _in_time(name: str, term: Term, batch: Sequence[Answered], seconds: float) -> list[float]:
    """What the term gives, from a thread that is left behind where it hangs: it cannot keep the process alive."""
    found: dict[str, Any] = {}

    def run() -> None:
        try:
            found["scores"] = list(term(batch))
        except Exception as error:
            found["error"] = error

    thread = threading.Thread(target=run, daemon=True, name=f"reward {name}")
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        raise RewardTimeoutError(
            f"reward {name!r} did not come back within {seconds:g} seconds; mend it, or raise "
            "defender_round.reward_seconds"
        )
    if "error" in found:
        error = found["error"]
        raise RewardError(f"reward {name!r} raised {type(error).__name__}: {error}") from error
    return found["scores"]
