r"""From a completion's text to the option letter it gives.

Used by everyone who judges answers: the Defender's reward, the Attacker's efficacy, the filter of the data stage and
the evaluation. The prompt asks for `\boxed{X}`; sloppier ways of saying the same are understood, guesses are not made.
"""

import re

_STRICT_BOX = re.compile(r"\\boxed\{\s*\(?([A-Za-z])\)?[.:]?\s*\}")
_SLOPPY_BOX = re.compile(r"boxed\s*[({\[:\s]*([A-Za-z])(?![A-Za-z])")
_PROSE = re.compile(r"(?i:answer|option|choice)\b(?i:\s+is)?\s*[:=]?\s*\(?([A-Za-z])(?![A-Za-z'])\)?")
_ALONE = re.compile(r"(?<![A-Za-z\\'])\(?([A-Z])\)?(?![A-Za-z'])")


def extract_letter(completion: str, letters: str) -> str | None:
    r"""The one option letter that a completion gives, upper case; None where it gives none or several.

    The most explicit form that is there decides: `\boxed{A}`; a sloppy box (`boxed (a)`); "the answer is B",
    "option B"; a capital letter that stands alone ("B", "(B)", "B. ring"). Within one form, different letters
    contradict each other and give None: a Defender that names every option has not answered.

    Args:
        completion: raw text.
        letters: the letters on offer, `"ABCD"`. Others are not answers.
    """
    for pattern in (_STRICT_BOX, _SLOPPY_BOX, _PROSE, _ALONE):
        found = {letter for match in pattern.findall(completion) if (letter := match.upper()) in letters}
        if pattern is _ALONE and "A" in found and _is_article(completion):
            found.discard("A")
        if len(found) > 1:
            return None
        if found:
            return found.pop()
    return None


def is_exactly_boxed(completion: str, letter: str) -> bool:
    r"""Whether the letter stands in exactly `\boxed{LETTER}`, capital and without blanks, and no other box does."""
    return re.findall(r"boxed[^A-Za-z]*[A-Za-z]?", completion) == [f"boxed{{{letter}"] and (
        f"\\boxed{{{letter}}}" in completion
    )


def _is_article(text: str) -> bool:
    """ "A red ring stands there" names no option: an A followed by a word in lower case is an article."""
    return re.search(r"(?<![A-Za-z])A\s+[a-z]", text) is not None
