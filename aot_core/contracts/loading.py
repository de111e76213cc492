"""Reads a campaign's TOML, applies `--set` overrides, and says what is wrong in the words of the file."""

import codecs
import tomllib
from pathlib import Path
from typing import Any, cast, get_args

from pydantic import ValidationError

from aot_core.contracts.artifact import StageName
from aot_core.contracts.campaign import CampaignConfig
from aot_core.contracts.explaining import explain, shown

SHIPPED_CONFIGS = Path(__file__).parents[1] / "configs"
"""The campaigns that come with the package, an installed one too; in a checkout a link to its `configs`."""
_MOST_BYTES = 16 * 2**20
"""A config larger than this is another file that was named by mistake."""
_OTHER_UNICODE = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)


class ConfigError(ValueError):
    """The campaign's config is not usable. The message names every field that is wrong, and the fix."""


def load_campaign(path: Path, overrides: list[str] | None = None) -> CampaignConfig:
    """Read, override, validate. Raises ConfigError.

    `path` may be a shipped campaign's bare name (`find_config`).

    An override reads `section.field=value`; the value is TOML (`3`, `true`, `"text"`, `[1, 2]`), or else a text.
    """
    path = find_config(path)
    text = _read(path)
    try:
        values = tomllib.loads(text)
    except RecursionError as error:
        raise ConfigError(f"{path}: brackets are nested too deeply; no field needs more than three levels") from error
    except ValueError as error:  # also for a number of more than 4,300 digits
        raise ConfigError(f"{path}: not valid TOML: {error}") from error
    for override in overrides or []:
        apply_override(values, override)
    if "edition" in values:
        raise ConfigError(f"{path}: edition: it is planned, never written by hand; leave it out and give --edition")
    if "restart" in values:
        raise ConfigError(f"{path}: restart: it is asked for, never written by hand; leave it out and give --from")
    for name in get_args(StageName):
        section = values.get(name)
        if isinstance(section, dict) and "seed" in section:
            raise ConfigError(f"{path}: {name}.seed: stages take their seed from the campaign; set `seed` at the top")
    try:
        return CampaignConfig.model_validate(values)
    except ValidationError as error:
        raise ConfigError(f"{path}:\n{explain(error, CampaignConfig)}") from error


def find_config(path: Path) -> Path:
    """The file itself; for a bare name (`tiny`) that is no file here, the campaign of that name that is shipped."""
    shipped = SHIPPED_CONFIGS / f"{path}.toml"
    bare = len(path.parts) == 1 and not path.suffix
    return shipped if bare and not path.is_file() and shipped.is_file() else path


def _read(path: Path) -> str:
    """A config's text, which is UTF-8, with a byte order mark or without. Raises ConfigError."""
    try:
        if not path.is_file():
            what = "is no file" if path.exists() else "does not exist"
            here = sorted(p.as_posix() for p in Path("configs").glob("*.toml"))
            known = ", ".join(here or sorted(p.stem for p in SHIPPED_CONFIGS.glob("*.toml")))
            raise ConfigError(f"config {shown(str(path))} {what}; there are {known}")
        if path.stat().st_size > _MOST_BYTES:
            raise ConfigError(
                f"config {shown(str(path))} has {path.stat().st_size:,} bytes; that is too large for a config"
            )
        content = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"config {shown(str(path))} cannot be read: {error.strerror}") from error
    except ValueError as error:  # a path with a null byte
        raise ConfigError(f"config {shown(str(path))} is not a path: {error}") from error
    if content.startswith(_OTHER_UNICODE):
        raise ConfigError(f"{path}: this is UTF-16 or UTF-32; save it as UTF-8, as TOML wants it")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise ConfigError(
            f"{path}: line {line} is not UTF-8 (byte 0x{content[error.start]:02x}); save the file as UTF-8, as TOML "
            "wants it"
        ) from error


def apply_override(values: dict[str, Any], override: str) -> None:
    """Set `section.field=value` in a config that is still a mapping. Raises ConfigError for another form."""
    dotted, equals, text = override.partition("=")
    if not equals or not dotted:
        raise ConfigError(f"--set {shown(override)}: write section.field=value")
    *sections, field = dotted.split(".")
    for section in sections:
        inner = values.setdefault(section, {})
        if not isinstance(inner, dict):
            raise ConfigError(f"--set {shown(dotted)}: {shown(section)} is a value, not a section")
        values = cast("dict[str, Any]", inner)
    values[field] = _value(dotted, text)


def _value(dotted: str, text: str) -> Any:
    try:
        found = tomllib.loads(f"value = {text}")
    except RecursionError as error:
        raise ConfigError(f"--set {shown(dotted)}: brackets are nested too deeply") from error
    except ValueError:
        return text
    return found["value"] if set(found) == {"value"} else text
