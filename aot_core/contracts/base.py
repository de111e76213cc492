"""The frozen base of every typed record, and the canonical form from which identities are hashed."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Final, cast

from pydantic import BaseModel, ConfigDict


class Frozen(BaseModel):
    """An immutable record. Unknown fields are rejected, so that a misspelt key is an error and not a default."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        allow_inf_nan=False,
        protected_namespaces=(),
        hide_input_in_errors=True,  # it may be a secret in the wrong place
    )


class Later:
    """Marks a field that was added after its contract's first release: `name: Annotated[int, LATER] = 3`.

    An identity leaves such a field out as long as it has its default, so that adding it invalidates no stored artifact.
    Its default must therefore reproduce the behaviour without the field. To change the default later, increment the
    contract's `VERSION`.
    """


LATER: Final = Later()


def decisive(value: Any) -> Any:
    """The part of a config or an input that enters an identity: its JSON, without `LATER` fields at their default."""
    if isinstance(value, BaseModel):
        fields = type(value).model_fields
        dumped = value.model_dump(mode="json")
        return {
            name: decisive(held) if _has_models(held := getattr(value, name)) else dumped[name]
            for name, field in fields.items()
            if not (LATER in field.metadata and getattr(value, name) == field.get_default(call_default_factory=True))
        }
    if isinstance(value, tuple | list):
        return [decisive(item) for item in cast("list[Any]", value)]
    if isinstance(value, Mapping):
        return {str(key): decisive(item) for key, item in cast("Mapping[Any, Any]", value).items()}
    return value


def _has_models(value: Any) -> bool:
    if isinstance(value, tuple | list):
        return any(_has_models(item) for item in cast("list[Any]", value))
    if isinstance(value, Mapping):
        return any(_has_models(item) for item in cast("Mapping[Any, Any]", value).values())
    return isinstance(value, BaseModel)


def canonical_json(value: Any) -> str:
    """JSON with sorted keys, no spaces and no NaN: equal values give equal bytes on every machine."""
    if isinstance(value, BaseModel):
        value = value.model_dump(mode="json")
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def sha256_of(value: Any) -> str:
    """The sha256 (64 hex digits) of a value's canonical JSON."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()
