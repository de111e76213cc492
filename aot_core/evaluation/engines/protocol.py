"""An engine answers questions about pictures; a journal keeps what it has answered, so that nothing is asked twice.

    questions -> engine.run(questions, journal) -> journal (append-only JSON lines, flushed answer by answer)
              -> every question's k answers

A killed evaluation starts again with the same journal and asks only for what is not in it.
"""

import json
import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self

from aot_core.contracts.base import sha256_of
from aot_core.contracts.errors import ToldError
from aot_core.contracts.protocols import Completion, is_cut_off

if TYPE_CHECKING:
    from PIL.Image import Image


class EngineError(ToldError, RuntimeError):
    """An engine cannot answer. What it has answered stands in the journal; starting again goes on from there."""


@dataclass(frozen=True)
class Ask:
    """A question to be put `samples` times."""

    key: str
    """Tells it from every other; letters and digits."""
    prompt: str
    open: "Callable[[], Sequence[Image]]"
    """Opens its pictures. Several threads may call it at once: what it shares among them is loaded (`Image.load`)."""
    samples: int


class Journal:
    """Answers on disk, by question and sample. Safe under several threads of one process."""

    def __init__(self, path: Path, about: object) -> None:
        """
        Args:
            path: made where it does not exist. A last line that a killed process left half written is dropped.
            about: what decides the answers (model, prompts, sampling); a file about something else is refused.

        Raises EngineError where the file is about something else.
        """
        self.path, self._lock = path, threading.Lock()
        self._answers: dict[tuple[str, int], Completion] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        head = json.dumps({"about": sha256_of(about)})
        lines = path.read_bytes().split(b"\n") if path.is_file() else []
        whole = lines[:-1]  # the last line of a whole file is empty
        if whole and json.loads(whole[0]) != json.loads(head):
            raise EngineError(f"{path} holds answers of another model or other settings; give another folder")
        for line in whole[1:]:
            key, sample, text, *ending = json.loads(line)
            self._answers[key, sample] = Completion(text, cut_off=bool(ending))
        if lines and lines[-1]:
            with path.open("r+b") as stream:
                stream.truncate(sum(len(line) + 1 for line in whole))
        self._stream = path.open("a", encoding="utf-8")
        if not whole:
            self._write(head)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stream.close()

    def has(self, key: str, sample: int) -> bool:
        return (key, sample) in self._answers

    def record(self, key: str, sample: int, text: str) -> None:
        """Keep an answer, and whether it is a `Completion` that was cut off, on disk before this returns."""
        with self._lock:
            if (key, sample) not in self._answers:
                self._answers[key, sample] = kept = Completion(text, cut_off=is_cut_off(text))
                self._write(_line(key, sample, kept))

    def answers(self, ask: Ask) -> list[Completion]:
        """A question's answers, in order. Raises KeyError where one is missing."""
        return [self._answers[ask.key, sample] for sample in range(ask.samples)]

    def export(self, path: Path) -> None:
        """Write all answers, sorted: equal answers give equal bytes, in whatever order they came."""
        lines = [_line(*key, text) for key, text in sorted(self._answers.items())]
        path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")

    def _write(self, line: str) -> None:
        self._stream.write(line + "\n")
        self._stream.flush()
        os.fsync(self._stream.fileno())


def _line(key: str, sample: int, text: Completion) -> str:
    """[key, sample, text], and "length" behind them where that ended it (OpenAI's `finish_reason`)."""
    return json.dumps([key, sample, text, *(["length"] if text.cut_off else [])], ensure_ascii=False)


class Engine(Protocol):
    """Something that answers."""

    @property
    def identity(self) -> dict[str, object]:
        """What decides its answers besides the questions: model and sampling."""
        ...

    def run(self, asks: Sequence[Ask], journal: Journal) -> None:
        """Answer every question that the journal lacks an answer to, and record it there.

        Raises EngineError where something stays unanswered.
        """
        ...


def seed_of(seed: int, key: str, sample: int = 0) -> int:
    """A seed (31 bits) of a question's own: it does not depend on what else is asked."""
    return int(sha256_of([seed, key, sample])[:8], 16) >> 1


def ask_all(engine: Engine, asks: Sequence[Ask], journal: Journal) -> dict[str, list[Completion]]:
    """Every question's answers, by key: from the journal where they are, from the engine otherwise."""
    engine.run(asks, journal)
    return {ask.key: journal.answers(ask) for ask in asks}
