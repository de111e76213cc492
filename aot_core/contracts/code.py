"""Which code a config may run: rewards and benchmarks name functions, and who names one has it imported and called.

On a machine of one's own that is what is wanted. On a shared server, where configs come from others, AOT_ALLOWED_CODE
says what may be named: prefixes of `package.module:function`, separated by commas; empty allows none. Not set, all may.
"""

import os
from collections.abc import Iterable

ALLOWED = "AOT_ALLOWED_CODE"


class CodeNotAllowedError(ValueError):
    """The config names a function that this machine does not let configs run."""


def demand_allowed(names: Iterable[str], field: str) -> None:
    """Raises CodeNotAllowedError for the first `package.module:function` that AOT_ALLOWED_CODE does not cover.

    Args:
        field: where the names stand, for the error's message.

    A prefix ends at a dot, a colon or the name's end: `rewards` covers `rewards:x` and `rewards.short:y`, but not
    `rewards_of_others:z`.
    """
    given = os.environ.get(ALLOWED)
    if given is None:
        return
    prefixes = [prefix.strip() for prefix in given.split(",") if prefix.strip()]
    for name in names:
        if ":" in name and not any(_covers(prefix, name) for prefix in prefixes):
            raise CodeNotAllowedError(
                f"{field}: {name!r} would run code that this machine does not allow; {ALLOWED} allows "
                f"{', '.join(prefixes) or 'none'}: take another function, or ask the machine's administrator to add it"
            )


def _covers(prefix: str, name: str) -> bool:
    return name == prefix or (name.startswith(prefix) and (prefix[-1] in ".:" or name[len(prefix)] in ".:"))
