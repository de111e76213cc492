"""The MLLM's three questions, and what its answers come to."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL.Image import Image

from aot_core.contracts.prepare_data import CocoSettings, ExtensionSettings
from aot_core.contracts.scene import Question
from aot_core.worlds.checker import MllmChecker, side_by_side
from aot_core.worlds.extension import Rejection
from aot_core.worlds.photographs.coco import CocoSource
from aot_core.worlds.photographs.extension import extend_photo


class Judge:
    """Answers by a rule: what the model itself would say is not what is tested."""

    def __init__(self, says: Callable[[str], str]) -> None:
        self.says = says
        self.asked: list[tuple[tuple[int, int], str]] = []

    def answer(
        self, images: Sequence[Image], questions: Sequence[Question], *, samples: int, temperature: float, seed: int
    ) -> list[list[str]]:
        del temperature, seed
        self.asked += [(image.size, question.text) for image, question in zip(images, questions, strict=True)]
        return [[self.says(question.text)] * samples for question in questions]


def test_each_question_rejects_for_its_own_reason(coco: Callable[..., Path], tmp_path: Path) -> None:
    source = CocoSource(coco(1), CocoSettings(type="coco"), tmp_path / "work").picture(0)
    extended = extend_photo(np.random.default_rng(0), source, ExtensionSettings())

    def fair(text: str) -> str:
        return r"\boxed{B}" if "more than one" in text else r"\boxed{A}"

    judge = Judge(fair)
    assert MllmChecker(judge).check(source, extended, 0) is None
    sizes, texts = zip(*judge.asked, strict=True)
    assert sizes[0] == side_by_side(source.image, extended.picture.image).size and set(sizes[1:]) == {
        extended.picture.image.size
    }
    assert [text for text in texts if "more than one" in text] == [
        f"Is there more than one {name} in the picture?" for name in ("ball 0", "dog 0", "kite 0")
    ]
    for word, reason in (("left picture", "composition"), ("kite 0", "duplication"), ("real photograph", "realism")):
        found = MllmChecker(Judge(lambda text, word=word: "hm" if word in text else fair(text))).check(
            source, extended, 0
        )
        assert found == Rejection(reason) and found.detail.endswith("judge: 'hm'")
