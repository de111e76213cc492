"""Reads a campaign's TOML, applies `--set` overrides, and says what is wrong in the words of the file."""

import difflib
import tomllib
from pathlib import Path
from typing import Any, cast, get_args

from pydantic import BaseModel, ValidationError

from aot_core.contracts.artifact import StageName
from aot_core.contracts.campaign import CampaignConfig


class ConfigError(ValueError):
    """The campaign's config is not usable. The message names every field that is wrong, and the fix."""


def load_campaign(path: Path, overrides: list[str] | None = None) -> CampaignConfig:
    """Read, override, validate. Raises ConfigError.

    An override reads `section.field=value`; the value is TOML (`3`, `true`, `"text"`, `[1, 2]`), or else a text.
    """
    if not path.is_file():
        known = ", ".join(sorted(p.as_posix() for p in Path("configs").glob("*.toml")))
        raise ConfigError(f"config {str(path)!r} does not exist; there are {known or 'none in ./configs'}")
    try:
        values = tomllib.loads(path.read_text())
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from error
    for override in overrides or []:
        apply_override(values, override)
    if "edition" in values:
        raise ConfigError(f"{path}: edition: it is planned, never written by hand; leave it out and give --edition")
    for section in get_args(StageName):
        if "seed" in values.get(section, {}):
            raise ConfigError(
                f"{path}: {section}.seed: stages take their seed from the campaign; set `seed` at the top"
            )
    try:
        return CampaignConfig.model_validate(values)
    except ValidationError as error:
        raise ConfigError(f"{path}:\n" + "\n".join(_explain(dict(e)) for e in error.errors())) from error


def apply_override(values: dict[str, Any], override: str) -> None:
    """Set `section.field=value` in a config that is still a mapping. Raises ConfigError for another form."""
    dotted, equals, text = override.partition("=")
    if not equals or not dotted:
        raise ConfigError(f"--set {override!r}: write section.field=value")
    try:
        value: Any = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    *sections, field = dotted.split(".")
    for section in sections:
        inner = values.setdefault(section, {})
        if not isinstance(inner, dict):
            raise ConfigError(f"--set {override!r}: {section!r} is a value, not a section")
        values = cast("dict[str, Any]", inner)
    values[field] = value


def _explain(error: dict[str, Any]) -> str:
    location: tuple[Any, ...] = error["loc"]
    field = ".".join(str(part) for part in location)
    if error["type"] != "extra_forbidden":
        return f"  {field}: {error['msg']} (given: {error.get('input')!r})"
    known = _fields_at(location[:-1])
    close = difflib.get_close_matches(str(location[-1]), known, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"known here: {', '.join(known)}"
    return f"  {field}: unknown key; {hint}"


def _fields_at(location: tuple[Any, ...]) -> list[str]:
    """The field names of the section at a location; what cannot be followed (a union) ends the walk there."""
    model: type[BaseModel] = CampaignConfig
    for part in location:
        field = model.model_fields.get(str(part))
        inner = field.annotation if field else None
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            return []
        model = inner
    return list(model.model_fields)
