"""The Prefect server that a command starts for itself where no PREFECT_API_URL is set, and its end.

Prefect ends it at the interpreter's exit. A process that dies of a signal has no such exit: its server would go on for
ever, polling and holding the home's database.
"""

import os
import signal
import sys
from contextlib import suppress
from types import FrameType
from typing import NoReturn

import psutil

_STARTED_BY = "AOT_PREFECT_STARTED_BY"
_APP = "prefect.server.api.server:create_app"
_PATIENCE_SECONDS = 10


def keep_own_server() -> None:
    """To be called once, first, by a process that runs flows.

    SIGTERM then ends it by way of an exit, and what servers killed predecessors left in this home are ended.
    """
    os.environ[_STARTED_BY] = str(os.getpid())
    signal.signal(signal.SIGTERM, _exit)
    if home := os.environ.get("PREFECT_HOME"):
        end_left_servers(home)


def end_left_servers(prefect_home: str) -> list[int]:
    """End the servers of this home whose starter is gone; returns their process numbers."""
    left = [process for process in psutil.process_iter() if _is_left(process, prefect_home)]
    for process in left:
        with suppress(psutil.NoSuchProcess):
            process.terminate()
    for process in psutil.wait_procs(left, _PATIENCE_SECONDS)[1]:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    return [process.pid for process in left]


def _is_left(process: psutil.Process, prefect_home: str) -> bool:
    try:
        if _APP not in process.cmdline():
            return False
        environment = process.environ()
        starter = environment.get(_STARTED_BY)
        # Who lost its parent has another one: the machine's first process, or a supervisor.
        return environment.get("PREFECT_HOME") == prefect_home and starter not in (None, str(process.ppid()))
    except psutil.Error:
        return False  # somebody else's, or gone


def _exit(number: int, _frame: FrameType | None) -> NoReturn:
    sys.exit(128 + number)
