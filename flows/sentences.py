"""What a flow reports when it cannot continue: its state's message and the terminal's sentence, in one place.

A flow that raises leaves Prefect to print a traceback, for a misspelt folder too. So every flow ends in `failed`, and
every process that runs one in `run_flow`.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from prefect import State
from prefect.states import Cancelled, Failed

from aot_core.commands.errors import is_fault, keep_traceback, sentence, tell, wants_traceback
from aot_core.contracts.errors import StageCancelledError, ToldError
from aot_core.home import Home

_FAULTS = "faults"
"""The folder of a home that holds the tracebacks of this program's own faults."""


class ServerLateError(ToldError):
    """Prefect's own server, which a run without PREFECT_API_URL starts, did not answer in time."""

    def __init__(self) -> None:
        seconds = os.environ.get("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "its limit")
        super().__init__(
            f"Prefect's server did not answer within {seconds} s: this machine is busy, or the server cannot start. "
            "Try again, raise PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS, or let PREFECT_API_URL name a server"
        )


def failed(error: Exception, home: str | Path) -> State[Any]:
    """The state of a flow run that an error ended: the sentence, and the error as its result. Raises the error again
    when debugging (AOT_DEBUG=1)."""
    if wants_traceback():
        raise error
    told = sentence(error)
    if isinstance(error, StageCancelledError):
        return Cancelled(message=told, data=error)
    if is_fault(error):
        kept = keep_traceback(error, Path(home) / _FAULTS)
        told += f" (a bug in aot, please report it; traceback: {kept})"
    return Failed(message=told, data=error)


def value_of(state: State[Any]) -> Any:
    """What a flow run gave; raises the error that ended it."""
    found = state.result(raise_on_failure=False)
    if isinstance(found, BaseException):
        raise found
    return found


def run_flow(home: str | Path | None, run: Callable[[], None]) -> int:
    """Run a flow as a process's whole work; returns the exit code (`aot_core.commands.errors`).

    Args:
        home: keeps the traceback of a fault of this program; None keeps none.
    """
    try:
        run()
    except Exception as error:
        if wants_traceback():
            raise
        if isinstance(error, RuntimeError) and "ephemeral Prefect API server" in str(error):
            error = ServerLateError()
        return tell(error, None if home is None else _faults(home))
    return 0


def _faults(home: str | Path) -> Path | None:
    try:
        return Home(home).root / _FAULTS
    except ValueError:
        return None
