"""The two players as the other side sees them. Attacker, Defender and evaluation know each other only so."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from aot_core.contracts.scene import Question

if TYPE_CHECKING:
    from PIL.Image import Image


class Answerer(Protocol):
    """A Defender that can be asked."""

    def answer(
        self, images: Sequence["Image"], questions: Sequence[Question], *, samples: int, temperature: float, seed: int
    ) -> list[list[str]]:
        """Answer every (image, question) `samples` times.

        Returns one list of `samples` completions (raw text) per question. Temperature 0 is greedy. The
        same seed gives the same answers. Raises ValueError when the two sequences differ in length.
        """
        ...


class Editor(Protocol):
    """An Attacker that can be told to edit."""

    def edit(self, images: Sequence["Image"], instructions: Sequence[str], *, seed: int) -> list["Image"]:
        """Edit every image by its instruction; the size stays. The same seed gives the same edits."""
        ...
