"""Texts from outside (a licence, a name, a reason) inside a Markdown page."""

from typing import Any

_ESCAPES = str.maketrans(
    {"&": "&amp;", "<": "&lt;", ">": "&gt;", "|": "\\|", "[": "\\[", "]": "\\]", "`": "\\`", "\n": " ", "\r": " "}
)


class Markdown(str):
    """A text that is Markdown already."""


def as_text(value: Any) -> Any:
    """A value that shows as the text it is, on one line: no tag, link, picture, code or table cell comes of it. For
    Jinja's `finalize`: other values than texts, and `Markdown`, are left alone."""
    if isinstance(value, Markdown) or not isinstance(value, str):
        return value
    return value.translate(_ESCAPES)
