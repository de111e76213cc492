"""Writes the configuration reference into `configuration.md` when the site is built.

Read from the pydantic models, so the page cannot disagree with what `aot run` accepts.
"""

import inspect
import types
from collections.abc import Iterator
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Interval, Le, Lt, MaxLen, MinLen
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from aot_core.contracts.campaign import CampaignConfig

PLACEHOLDER = "<!-- configuration reference -->"


def on_page_markdown(markdown: str, **_: Any) -> str:
    """MkDocs calls this for every page; only one has the placeholder."""
    return markdown.replace(PLACEHOLDER, reference()) if PLACEHOLDER in markdown else markdown


def reference() -> str:
    """The whole reference in Markdown: a heading a TOML table, a row a field."""
    return "\n".join(_section("", CampaignConfig))


def _section(path: str, model: type[BaseModel], title: str | None = None) -> Iterator[str]:
    level = "#" * min(2 + path.count(".") + bool(path), 4)
    yield f"\n{level} {title or (f'`[{path}]`' if path else 'Top level')}\n"
    if model.__doc__ and "A usage docs" not in model.__doc__:
        yield inspect.cleandoc(model.__doc__) + "\n"
    plain = {name: field for name, field in model.model_fields.items() if not _sole_model(field)}
    if plain:
        yield "| field | type | default | meaning |"
        yield "|---|---|---|---|"
        for name, field in plain.items():
            yield f"| `{name}` | {_type(field)} | {_default(field)} | {_cell(field.description or '')} |"
    for name, field in model.model_fields.items():
        below = f"{path}.{name}" if path else name
        if below in ("edition", "restart"):  # written by the program, never by hand
            continue
        choices = _models(field)
        for choice in choices:
            tag = _tag(choice)
            titled = f'`[{below}]` with `type = "{tag}"`' if tag and len(choices) > 1 else None
            yield from _section(below, choice, titled)


def _models(field: FieldInfo) -> list[type[BaseModel]]:
    """The config models that a field may hold as a table of its own."""
    return [
        member for member in _members(field.annotation) if isinstance(member, type) and issubclass(member, BaseModel)
    ]


def _members(annotation: Any) -> list[Any]:
    origin = get_origin(annotation)
    if origin is Annotated:
        return _members(get_args(annotation)[0])
    if origin in (Union, types.UnionType):
        return [member for part in get_args(annotation) for member in _members(part)]
    return [annotation]


def _sole_model(field: FieldInfo) -> bool:
    return bool(_models(field)) and all(member in _models(field) for member in _members(field.annotation))


def _tag(model: type[BaseModel]) -> str | None:
    field = model.model_fields.get("type")
    values = get_args(field.annotation) if field and get_origin(field.annotation) is Literal else ()
    return values[0] if values else None


def _type(field: FieldInfo) -> str:
    members = _members(field.annotation)
    named = " or ".join(dict.fromkeys(_name(member) for member in members if member is not types.NoneType))
    bounds = " ".join(_bounds(field.metadata))
    return f"{named} {bounds}".strip() + ", optional" * (types.NoneType in members)


def _name(annotation: Any) -> str:
    origin = get_origin(annotation)
    if origin is Literal:
        return ", ".join(f"`{value!r}`".replace("'", '"') for value in get_args(annotation))
    if origin in (tuple, list):
        inner = [part for part in get_args(annotation) if part is not Ellipsis]
        return "list of " + " / ".join(dict.fromkeys(_name(member) for part in inner for member in _members(part)))
    if origin is not None:
        return "table" if "dict" in str(origin).lower() or "Mapping" in str(origin) else str(origin)
    names = {str: "text", int: "integer", float: "number", bool: "true or false"}
    return names.get(annotation, f"table `{getattr(annotation, '__name__', annotation)}`")


def _bounds(metadata: list[Any]) -> Iterator[str]:
    for mark in metadata:
        for bound in mark if isinstance(mark, Interval) else [mark]:
            if isinstance(bound, Ge):
                yield f"≥ {bound.ge}"
            elif isinstance(bound, Gt):
                yield f"> {bound.gt}"
            elif isinstance(bound, Le):
                yield f"≤ {bound.le}"
            elif isinstance(bound, Lt):
                yield f"< {bound.lt}"
            elif isinstance(bound, MinLen):
                yield f"at least {bound.min_length}"
            elif isinstance(bound, MaxLen):
                yield f"at most {bound.max_length}"


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if value is None:
        return "none"
    if isinstance(value, BaseModel):
        return "see below"
    written = (
        str(value).lower() if isinstance(value, bool) else repr(list(value) if isinstance(value, tuple) else value)
    )
    return f"`{written}`".replace("'", '"') if len(written) <= 60 else "see the source"


def _cell(text: str) -> str:
    return " ".join(inspect.cleandoc(text).split()).replace("|", "\\|")
