"""Pydantic's errors in the words of the config, a line a field: what is wrong, what was given, and the fix.

What was given is shown where it is short and cannot be a secret.
"""

import difflib
import re
from typing import Any

from pydantic import BaseModel, ValidationError

_MOST_LINES = 20
_LONGEST = 80
_HIDDEN = {"credentials", "reference", "store", "url"}
"""Kinds of errors about fields that may hold a secret (`aot_core.contracts.secrets`, `aot_core.contracts.texts`)."""
_SECTION = {"model_type", "model_attributes_type", "dict_type", "dataclass_type"}
_USER_IN_URL = re.compile(r"(\w+://)\S*@")
"""To the last "@": keys of AWS hold slashes, which nobody quotes."""


def explain(error: ValidationError, root: type[BaseModel] | None = None) -> str:
    """A line for each field that is wrong, the first twenty.

    Args:
        root: the model that was validated: knows which keys a misspelt one could have meant.
    """
    found = error.errors(include_url=False)
    lines = [_line(dict(one), root) for one in found[:_MOST_LINES]]
    if len(found) > _MOST_LINES:
        lines.append(f"  and {len(found) - _MOST_LINES} more")
    return "\n".join(lines)


def without_credentials(text: str) -> str:
    """A text in which no URL has a user or password."""
    return _USER_IN_URL.sub(r"\1***@", text)


def shown(value: Any) -> str:
    """A value as it is repeated to who gave it: short, on one line, without a URL's user and password."""
    if isinstance(value, str | bool | int | float | None):
        try:
            text = repr(value)
        except ValueError:  # an int of more than 4,300 digits
            return "a number of thousands of digits"
        text = without_credentials(text)
        return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}... ({len(text)} characters)"
    return ""


def _line(error: dict[str, Any], root: type[BaseModel] | None) -> str:
    location: tuple[Any, ...] = error["loc"]
    field = ".".join(_short(part) for part in location)
    prefix = f"  {field}: " if field else "  "
    if error["type"] == "extra_forbidden":
        known = _fields_at(root, location[:-1])
        close = difflib.get_close_matches(str(location[-1])[:_LONGEST], known, n=1)
        hint = (
            f"did you mean {close[0]!r}?" if close else f"known here: {', '.join(known)}" if known else "leave it out"
        )
        return f"{prefix}unknown key; {hint}"
    if error["type"] in _SECTION:
        return f"{prefix}this is a section with fields of its own; write [{field}] or {field}.FIELD = VALUE"
    message = str(error["msg"]).removeprefix("Value error, ")
    given = "" if error["type"] in _HIDDEN else shown(error.get("input"))
    return f"{prefix}{message}" + (f" (given: {given})" if given else "")


def _short(part: Any) -> str:
    text = without_credentials(str(part))
    text = text if text.isprintable() else ascii(text)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def _fields_at(root: type[BaseModel] | None, location: tuple[Any, ...]) -> list[str]:
    """The field names of the section at a location; what cannot be followed (a union) ends the walk there."""
    model = root
    for part in location:
        field = model.model_fields.get(str(part)) if model else None
        inner = field.annotation if field else None
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            return []
        model = inner
    return list(model.model_fields) if model else []
