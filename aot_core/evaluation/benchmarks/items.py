"""A benchmark's question, and the words in which it is put."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from PIL.Image import Image

from aot_core.worlds.images import open_image


@dataclass(frozen=True)
class BenchmarkItem:
    """One question. Its pictures lie in a folder, and are opened when it is asked."""

    benchmark: str
    index: str
    """As the file numbers it."""
    question: str
    options: tuple[tuple[str, str], ...]
    """(letter, text); empty where the answer is yes or no."""
    answer: str
    """A letter, or "Yes" or "No"."""
    folder: Path
    images: tuple[str, ...]
    """Relative to the folder."""
    image_sha256: tuple[str, ...]
    """Of the pictures' bytes: the same question about another picture is another question."""
    category: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    """What the scoring rule needs besides: `cycle`, `l2-category`, ..."""

    @property
    def key(self) -> str:
        """16 hex digits that tell the question, its options' order and its pictures."""
        said = "\n".join([self.benchmark, self.index, self.prompt, *self.image_sha256])
        return hashlib.sha256(said.encode()).hexdigest()[:16]

    @property
    def letters(self) -> str:
        return "".join(letter for letter, _ in self.options)

    @property
    def prompt(self) -> str:
        """The question as an MLLM is asked it (arXiv 2602.22227's prompts)."""
        if not self.options:
            return f"{self.question}\nAnswer with \\boxed{{Yes}} or \\boxed{{No}}."
        lines = [self.question, *(f"{letter}. {text}" for letter, text in self.options)]
        return "\n".join([*lines, "Answer with \\boxed{X}."])

    def open(self) -> list[Image]:
        """Its pictures. Raises DataError naming the one that cannot be read."""
        return [open_image(self.folder, image) for image in self.images]
