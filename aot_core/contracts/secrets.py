"""Secrets stand in no config: a field that could hold one names where it is kept.

    "env:NAME"                     an environment variable
    "prefect-block:secret/NAME"    a Prefect secret block

A config is written to many places: MLflow's parameters, Prefect's database, `summary.json`, reports. So a URL with a
password, a token or a query in it is refused, and the value behind a reference is read at the moment of its use
(`reveal`). Blocks are read by `flows.secrets`, which hands them on as environment variables: a stage in another process
finds both kinds in the same way.
"""

import os
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, cast
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr
from pydantic_core import PydanticCustomError

_REFERENCE = re.compile(
    r"env:(?P<variable>[A-Z_][A-Z0-9_]{0,127})|prefect-block:secret/(?P<block>[a-z0-9][a-z0-9-]{0,62})"
)
_LONGEST = 2048
_PLAIN_SEGMENT = re.compile(r"[a-z]{1,24}([-_.][a-z]{1,24}){0,5}|v\d{1,3}(\.\d{1,3})*|\d{1,4}")
"""A path segment that is no token: words in lower case, a version, a small number."""
_HOW = 'put it into an environment variable and write "env:NAME", or into a Prefect block, "prefect-block:secret/NAME"'
_TELLING_OPTION = re.compile(r"--?[a-z0-9-]*(api-?key|token|password|secret)(=.*)?", re.IGNORECASE | re.DOTALL)


class SecretError(ValueError):
    """A secret that a reference names is not there, or is of no use. The message never holds the secret."""


def _url(value: str, *, path_may_tell: bool) -> str:
    """The text of a URL without credentials, or of a reference. What is refused is never repeated in the message."""
    if _REFERENCE.fullmatch(value):
        return value
    if value.startswith(("env:", "prefect-block:")):
        raise PydanticCustomError(
            "reference",
            'write a reference as "env:NAME" (capitals, digits, "_") or "prefect-block:secret/NAME" (small letters, '
            'digits, "-")',
        )
    if len(value) > _LONGEST or re.search(r"[\x00-\x20\x7f]", value):
        raise PydanticCustomError("url", "a URL has no spaces and at most 2,048 characters")
    if "@" in value:  # also behind a slash, which a password may hold
        raise PydanticCustomError("credentials", f"a URL with credentials in it would be written to every log; {_HOW}")
    try:
        parts = urlsplit(value)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        usable = False
    if not usable:
        raise PydanticCustomError("url", 'give an address that starts with http:// or https://, or "env:NAME"')
    parts = urlsplit(value)
    if parts.query or parts.fragment:
        raise PydanticCustomError("credentials", f"what follows '?' or '#' in a URL may be a token; {_HOW}")
    if not path_may_tell and not all(_PLAIN_SEGMENT.fullmatch(part) for part in parts.path.split("/") if part):
        raise PydanticCustomError("credentials", f"the path of this URL looks like a token; {_HOW}")
    return value


def _plain_address(value: str) -> str:
    return _url(value, path_may_tell=True)


def _address_without_reference(value: str) -> str:
    if value.startswith(("env:", "prefect-block:")):
        raise PydanticCustomError(
            "url", "TRL writes this address beside its checkpoints; give it itself, not a reference"
        )
    return _url(value, path_may_tell=True)


def _plain_webhook(value: str) -> str:
    return _url(value, path_may_tell=False)


def _reference_alone(value: str) -> str:
    if not _REFERENCE.fullmatch(value):
        raise PydanticCustomError("reference", f"a key must not stand in a config; {_HOW}")
    return value


def _variable_name(value: str) -> str:
    if value and not _REFERENCE.fullmatch(f"env:{value}"):
        raise PydanticCustomError(
            "reference",
            "give the name of an environment variable, in capitals, digits and '_'; the key itself stands in no config",
        )
    return value


def _no_credential_options(arguments: tuple[str, ...]) -> tuple[str, ...]:
    if any(_TELLING_OPTION.fullmatch(argument) for argument in arguments):
        raise PydanticCustomError(
            "credentials",
            "an argument here is a credential, and arguments are seen by every user of the machine; leave it out, and "
            "set the environment variable that the program reads (VLLM_API_KEY, HF_TOKEN)",
        )
    return arguments


Address = Annotated[str, AfterValidator(_plain_address), Field(max_length=_LONGEST)]
"""A server's URL, without user, password, query or fragment; or a reference."""

PlainAddress = Annotated[str, AfterValidator(_address_without_reference), Field(max_length=_LONGEST)]
"""The same where a library keeps the address itself, so that it cannot be a secret."""

Webhook = Annotated[str, AfterValidator(_plain_webhook), Field(max_length=_LONGEST)]
"""The same where the address alone lets anybody in: its path may be words, versions and small numbers; every other is
taken for a token (Slack's, Discord's and Teams' all are), and must be a reference."""

SecretKey = Annotated[str, AfterValidator(_reference_alone), Field(max_length=_LONGEST)]
"""A reference to a key: nothing else is taken."""

VariableName = Annotated[str, AfterValidator(_variable_name), Field(max_length=_LONGEST)]
"""An environment variable's name, in capitals: a key that is pasted in its place does not pass for one."""

PublicArguments = Annotated[
    tuple[Annotated[str, Field(max_length=_LONGEST)], ...],
    Field(max_length=256),
    AfterValidator(_no_credential_options),
]
"""A program's arguments, none of which hands over a credential."""


def block_of(value: str) -> str | None:
    """The Prefect secret block that a reference names; None where it names none."""
    found = _REFERENCE.fullmatch(value)
    return found["block"] if found else None


def variable_of(value: str) -> str | None:
    """The environment variable that holds what a reference names, also of a block; None where it is no reference."""
    found = _REFERENCE.fullmatch(value)
    if found is None:
        return None
    return found["variable"] or "AOT_SECRET_" + found["block"].upper().replace("-", "_")


def references_in(value: Any) -> set[str]:
    """Every reference in a JSON value, and as `env:NAME` every variable that a field `api_key_env` names."""
    if isinstance(value, str):
        return {value} if _REFERENCE.fullmatch(value) else set()
    if isinstance(value, Mapping):
        items = cast("Mapping[str, Any]", value)
        keys = {f"env:{name}" for name in (items.get("api_key_env"),) if name}
        return keys.union(*(references_in(one) for one in items.values()))
    if isinstance(value, Sequence):
        return set[str]().union(*(references_in(one) for one in cast("Sequence[Any]", value)))
    return set()


def variables_in(value: Any) -> set[str]:
    """The environment variables that a JSON value's references stand for: what a stage elsewhere must be given."""
    return {variable for reference in references_in(value) if (variable := variable_of(reference))}


def reveal(value: str, field: str) -> SecretStr:
    """What a URL field stands for: itself, or what the reference names.

    Raises SecretError where the variable is empty or holds no http(s) URL.
    """
    variable = variable_of(value)
    if variable is None:
        return SecretStr(value)
    found = os.environ.get(variable, "")
    if not found:
        raise SecretError(f"{field}: {value} names the environment variable {variable}, which is not set; set it")
    if not found.startswith(("http://", "https://")):
        raise SecretError(
            f"{field}: the environment variable {variable} does not hold a URL; it must start with http(s)://"
        )
    return SecretStr(found)


def reveal_key(reference: str, field: str) -> SecretStr:
    """The key that a reference names. Raises SecretError where its variable is empty."""
    variable = variable_of(reference)
    assert variable is not None, "a SecretKey is a reference"
    found = os.environ.get(variable, "")
    if not found:
        raise SecretError(f"{field}: {reference} names the environment variable {variable}, which is not set; set it")
    return SecretStr(found)


def demand_revealed(reference: str) -> None:
    """Raises SecretError where the variable that a reference names is empty."""
    variable = variable_of(reference)
    if variable is not None and not os.environ.get(variable):
        raise SecretError(f"{reference} names the environment variable {variable}, which is not set; set it")


def redacted(text: str, secret: SecretStr, reference: str) -> str:
    """A text in which the reference stands wherever the secret stood, whole or as its path."""
    value = secret.get_secret_value()
    if value == reference:
        return text
    parts = urlsplit(value)
    tail = parts.path + (f"?{parts.query}" if parts.query else "")
    for telling in (value, value.rstrip("/"), parts.netloc.rpartition("@")[0], tail, tail.rstrip("/")):
        if len(telling) > 1:
            text = text.replace(telling, reference)
    return text
