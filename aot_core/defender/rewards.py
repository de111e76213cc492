r"""The Defender's verifiable reward (arXiv 2602.22227, the public repository's reward function).

0.8 for the right letter, however it is said, and 0.2 more if it stands in exactly `\boxed{LETTER}`.
"""

from aot_core.contracts.scene import LETTERS
from aot_core.data.answers import extract_letter, is_exactly_boxed

ACCURACY_REWARD = 0.8
FORMAT_REWARD = 0.2


def defender_reward(completion: str, answer: str, letters: str = LETTERS) -> float:
    r"""0.8 if the extracted letter is `answer`, 1.0 if it also stands in exactly `\boxed{LETTER}`, else 0.

    Args:
        completion: raw text.
        answer: the right option's letter.
        letters: the letters on offer.
    """
    if extract_letter(completion, letters) != answer:
        return 0.0
    return ACCURACY_REWARD + (FORMAT_REWARD if is_exactly_boxed(completion, answer) else 0.0)
