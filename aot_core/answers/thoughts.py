"""What of a completion is said, and what only thought."""

import re

from aot_core.contracts.protocols import Completion

_NAMES = r"think|thinking|thought|thoughts|reason|reasoning|reflection|scratchpad|analysis|seed:think"
_OPENING = re.compile(rf"<(?:{_NAMES})>|◁think▷|\[THINK\]|<\|begin_of_thought\|>", re.IGNORECASE)
_CLOSING = re.compile(rf"</(?:{_NAMES})>|◁/think▷|\[/THINK\]|<\|end_of_thought\|>", re.IGNORECASE)


def without_thoughts(completion: str) -> str | None:
    """What a completion says behind its thoughts.

    None where there is no answer to be had: the length limit cut the completion off, or its thought never ends.
    """
    if isinstance(completion, Completion) and completion.cut_off:
        return None
    said = completion
    for closing in _CLOSING.finditer(completion):
        said = completion[closing.end() :]
    return None if _OPENING.search(said) else said
