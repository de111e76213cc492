r"""From a completion to a benchmark's answer: a letter, or Yes or No; None where it gives none, or several.

The prompts ask for `\boxed{X}`. What is said in other words is understood where it is plain, in several languages;
guesses are not made: a model that names every option, or declines to answer, has not answered.
"""

import re
from collections.abc import Sequence

from aot_core.data.answers import extract_letter

_THOUGHT = re.compile(r"<think>.*?</think>", re.DOTALL)
_PRONOUN = re.compile(r"(?<![A-Za-z\\({])I(?=\s+[a-z]|'[a-z])")
"""The English I before a verb: with nine options (MMMU) it would be one."""
_BOXED_WORD = re.compile(r"\\boxed\{\s*(?:\\text\{)?\s*([^\W\d_]+)", re.IGNORECASE)
_WORD = re.compile(r"[^\W\d_]+")
_YES = {"yes", "oui", "ja", "sí", "sì", "sim", "да", "はい", "是", "是的", "有", "对"}
_NO = {"no", "non", "nein", "não", "нет", "いいえ", "不是", "否", "没有", "不", "不对"}
_DECLINED = re.compile(
    r"\b(cannot|can't|can not|unable to|not able to|won't|will not)\b.{0,40}\b(answer|tell|determine|assist|help|say)",
    re.IGNORECASE,
)


def parse_choice(completion: str, options: Sequence[tuple[str, str]]) -> str | None:
    r"""The option's letter that a completion gives.

    A letter in any of the forms of `extract_letter` decides; where there is none, the one option whose text the
    completion holds. Thoughts between <think> tags are not answers.

    Args:
        options: (letter, text).
    """
    said = _THOUGHT.sub(" ", completion)
    letters = "".join(letter for letter, _ in options)
    letter = extract_letter(_PRONOUN.sub("", said), letters)
    if letter is not None or "boxed" in said or _DECLINED.search(said):
        return letter
    if _names_letters(said, letters):
        return None
    named = [letter for letter, text in options if text and _holds(said, text)]
    return named[0] if len(named) == 1 else None


def parse_yes_no(completion: str) -> str | None:
    r""" "Yes" or "No": in a box; else by the first word; else by the one of the two words that is there."""
    said = _THOUGHT.sub(" ", completion)
    boxed = {answer for word in _BOXED_WORD.findall(said) if (answer := _yes_no(word))}
    if boxed:
        return boxed.pop() if len(boxed) == 1 else None
    if _DECLINED.search(said):
        return None
    words = _WORD.findall(said)
    if words and (first := _yes_no(words[0])):
        return first
    found = {answer for word in words if (answer := _yes_no(word))}
    return found.pop() if len(found) == 1 else None


def _yes_no(word: str) -> str | None:
    word = word.lower()
    return "Yes" if word in _YES else "No" if word in _NO else None


def _names_letters(said: str, letters: str) -> bool:
    """Whether several options' letters stand there: a contradiction, which no option's text mends."""
    return len(set(re.findall(rf"(?<![A-Za-z])[({{]?([{letters}])[)}}.:](?![A-Za-z])", said))) > 1


def _holds(said: str, text: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(text)}(?!\w)", said, re.IGNORECASE) is not None
