"""The Prefect server that a command starts for itself where no PREFECT_API_URL is set, and its end.

Prefect ends it at the interpreter's exit. A process that dies of a signal has no such exit: its server would run
forever, polling and holding the home's database.
"""

import logging
import os
import signal
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
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
        set_damaged_aside(Path(home) / "prefect.db")


@contextmanager
def interruptible(told: str) -> Iterator[None]:
    """Ctrl-C inside the block ends the process with a line instead of a traceback; the second one at once.

    The first lets the stage and the campaign's runs be closed, which takes seconds. A terminal interrupts the server
    too: that the run's end cannot be reported to it is expected then.
    """
    interrupted = False

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        nonlocal interrupted
        interrupted = True
        signal.signal(signal.SIGINT, _end_at_once)
        print(
            f"interrupted: closing the campaign; press Ctrl-C again to end at once; {told}", file=sys.stderr, flush=True
        )
        logging.disable(logging.ERROR)
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    except BaseException:
        if not interrupted:
            raise
    finally:
        signal.signal(signal.SIGINT, before)
    if interrupted:
        # By now the campaign is closed; Prefect's exit would try to reach its server for another minute.
        _end_at_once(signal.SIGINT, None)


def _end_at_once(number: int, _frame: FrameType | None) -> NoReturn:
    """What goes on is settled by the next start; so no `finally` and no exit handler is waited for."""
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            child.terminate()
    sys.stdout.flush()
    os._exit(128 + number)


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


def set_damaged_aside(database: Path) -> Path | None:
    """Rename Prefect's database where it is none, so that its server makes another; returns where it lies then.

    It holds the history of runs that its pages show, and nothing that a campaign needs. One that was left half migrated
    its server migrates to the end by itself.
    """
    if not database.is_file():
        return None
    try:
        with database.open("rb") as stream:
            if stream.read(16) not in (b"", b"SQLite format 3\0"):
                raise sqlite3.DatabaseError  # before SQLite looks at it, which would clear its log away
        with closing(sqlite3.connect(f"{database.absolute().as_uri()}?mode=rw", uri=True)) as connection:
            connection.execute("SELECT count(*) FROM sqlite_master").fetchall()
    except sqlite3.OperationalError:
        return None  # locked, or not to be opened: its server tells
    except sqlite3.DatabaseError:
        aside = database.with_name(f"{database.name}.damaged-{datetime.now(UTC):%Y%m%dT%H%M%S.%f}")
        for suffix in ("-wal", "-shm", ""):
            with suppress(FileNotFoundError):
                database.with_name(database.name + suffix).rename(aside.with_name(aside.name + suffix))
        print(f"Prefect's database is damaged: set aside as {aside}, and recreated", file=sys.stderr, flush=True)
        return aside
    return None


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
