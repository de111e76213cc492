"""Reading JSON as Python's `json` does, as a stream: with a byte-order mark, NaN and numbers of any length.

Files that COCO's own tools read hold such things. NaN and the infinities come out as the texts "NaN", "Infinity" and
"-Infinity", so that fields which need a number refuse them, and others ignore them.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Protocol

_BLOCK = 1 << 20
_NOT_JSON = (b"NaN", b"Infinity")
_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*"|-?Infinity|NaN', re.DOTALL)
_TOKEN_OR_OPEN = re.compile(_TOKEN.pattern + rb'|(?P<open>")', re.DOTALL)
_UTF_8_MARK, _UTF_16_MARKS = b"\xef\xbb\xbf", (b"\xff\xfe", b"\xfe\xff")


class Readable(Protocol):
    """What a parser reads from."""

    def read(self, size: int = -1, /) -> bytes: ...


@contextmanager
def open_json(path: Path) -> Iterator[Readable]:
    """The file's bytes as strict JSON has them. Raises ValueError for one in UTF-16."""
    with path.open("rb") as file:
        mark = file.read(len(_UTF_8_MARK))
        if mark[:2] in _UTF_16_MARKS:
            raise ValueError("it is in UTF-16; save it as UTF-8")
        start = len(_UTF_8_MARK) if mark == _UTF_8_MARK else 0
        file.seek(start)
        strict = not any(_holds(file, word) for word in _NOT_JSON)
        file.seek(start)
        yield file if strict else _Quoting(file)


def _holds(file: BinaryIO, word: bytes) -> bool:
    """Whether the word stands in the rest of the file."""
    place = file.tell()
    tail = b""
    while block := file.read(_BLOCK):
        if word in tail + block:
            file.seek(place)
            return True
        tail = block[1 - len(word) :]
    file.seek(place)
    return False


class _Quoting:
    """The file with NaN and the infinities in quotes, wherever they are no part of a text."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._ready, self._rest = file, b"", b""

    def read(self, size: int = -1, /) -> bytes:
        wanted = size if size >= 0 else float("inf")
        while len(self._ready) < wanted:
            block = self._file.read(_BLOCK)
            text = self._rest + block
            # A text or a word that the block's end cuts in two waits for the next block.
            cut = _last_boundary(text) if block else len(text)
            self._rest = text[cut:]
            self._ready += _TOKEN.sub(_quoted, text[:cut])
            if not block:
                break
        part, self._ready = (self._ready, b"") if size < 0 else (self._ready[:size], self._ready[size:])
        return part


def _quoted(match: re.Match[bytes]) -> bytes:
    return match[0] if match[0].startswith(b'"') else b'"' + match[0] + b'"'


def _last_boundary(text: bytes) -> int:
    """The place behind the last token that is surely whole."""
    end = 0
    for match in _TOKEN_OR_OPEN.finditer(text):
        if match["open"] is not None:
            return match.start()
        end = match.end()
    # Outside of texts one of these ends every word.
    return max(end, *(text.rfind(mark, end) + 1 for mark in (b",", b"[", b"{", b"]", b"}", b":")))
