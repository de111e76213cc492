"""The two players as the other side sees them. Attacker, Defender and evaluation know each other only so."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, Self

from aot_core.contracts.scene import Question

if TYPE_CHECKING:
    from PIL.Image import Image


class Completion(str):
    """A completion that knows whether the length limit ended it. To everyone else it is its text."""

    __slots__ = ("cut_off",)

    cut_off: bool
    """Whether the limit on new tokens ended it (`finish_reason` "length"): it gives no answer then."""

    def __new__(cls, text: str, *, cut_off: bool = False) -> Self:
        made = super().__new__(cls, text)
        made.cut_off = cut_off
        return made


def is_cut_off(completion: str) -> bool:
    """Whether the length limit ended a completion, as far as is known."""
    return isinstance(completion, Completion) and completion.cut_off


class Answerer(Protocol):
    """A Defender that can be asked."""

    def answer(
        self, images: Sequence["Image"], questions: Sequence[Question], *, samples: int, temperature: float, seed: int
    ) -> list[list[str]]:
        """Answer every (image, question) `samples` times.

        Returns one list of `samples` completions (raw text; a `Completion` where the length limit may have cut it off)
        per question. Temperature 0 is greedy. The same seed gives the same answers. Raises ValueError when the two
        sequences differ in length.
        """
        ...


class Editor(Protocol):
    """An Attacker that can be told to edit."""

    def edit(self, images: Sequence["Image"], instructions: Sequence[str], *, seed: int) -> list["Image"]:
        """Edit every image by its instruction; the size stays. The same seed gives the same edits."""
        ...
