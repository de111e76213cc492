"""Functions that a config or a registry names: `package.module:function`."""

from collections.abc import Callable
from importlib import import_module
from typing import Any

from aot_core.contracts.code import demand_allowed

FUNCTION = r"[\w.]+:\w+"
"""How such a name reads, as a regular expression."""


def import_function(name: str, field: str) -> Callable[..., Any]:
    """The function of a name.

    Args:
        field: where the name stands, for the error's message.

    Raises ValueError where the module cannot be imported, holds no such function, or is not on the allow-list
    (`contracts.code`).
    """
    demand_allowed([name], field)
    module, _, attribute = name.partition(":")
    try:
        found = getattr(import_module(module), attribute)
    except Exception as error:  # importing runs the module: it can raise anything
        raise ValueError(f"{field}: {name!r} cannot be imported: {type(error).__name__}: {error}") from error
    if not callable(found):
        raise ValueError(f"{field}: {name!r} is not a function; name one as package.module:function")
    return found
