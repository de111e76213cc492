"""What people read when something goes wrong: one sentence and an exit code, for the command line and the flows.

    0    done
    1    done, and something was found: a broken file, an answer that differs, a machine that lacks something;
         or a stage crashed
    2    bad input, or something that is needed is not there; the sentence names the fix
    3    out of memory
    4    a stage took longer than its campaign allows
    5    cancelled
    70   a bug in this program
    130  Ctrl-C

Tracebacks are for debugging: `aot --debug ...` or AOT_DEBUG=1.
"""

import errno
import os
import sys
import traceback
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperGroup

from aot_core.commands.handover import write_private
from aot_core.contracts.errors import StageOutOfMemoryError, ToldError

FOUND, BAD_INPUT, FAULT, INTERRUPTED = 1, 2, 70, 130
DEBUG = "AOT_DEBUG"

_OTHERS = {
    "alembic", "botocore", "docker", "filelock", "httpcore", "httpx", "huggingface_hub", "mlflow", "PIL",
    "prefect", "pyarrow", "requests", "s3transfer", "safetensors", "sqlalchemy", "sqlite3", "urllib3",
}  # fmt: skip
"""Libraries whose errors tell of services, files and networks, not of this program."""
_FIXES = {
    errno.ENOENT: "give one that exists",
    errno.ENOTDIR: "a part of it is a file; give a folder",
    errno.EEXIST: "it is a file; give a folder",
    errno.EISDIR: "it is a folder; give a file",
    errno.EACCES: "give one that you may access, or ask for permission",
    errno.EPERM: "give one that you may access, or ask for permission",
    errno.EROFS: "it is read-only; give one that can be written to",
    errno.ENOSPC: "free some space and run it again: it resumes where it stopped",
    errno.EDQUOT: "free some space and run it again: it resumes where it stopped",
    errno.ENAMETOOLONG: "give a shorter one",
    errno.ELOOP: "its links form a loop; give another",
    errno.EADDRINUSE: "another process holds the port; end it, or give another port",
    errno.ECONNREFUSED: "no server answers there; start it, or give another address",
}


class Sentences(TyperGroup):
    """The commands of `aot`: whatever one raises becomes a sentence, here and nowhere else."""

    def invoke(self, ctx: typer.Context) -> Any:
        """See typer. Ends with an exit code of this module's table where a command raises."""
        try:
            return super().invoke(ctx)
        except Exception as error:
            # Typer's own, a wrong option or an Exit, are for its caller.
            if wants_traceback() or type(error).__module__.partition(".")[0] in ("typer", "click"):
                raise
            raise typer.Exit(tell(error)) from error


def wants_traceback() -> bool:
    """Whether the caller asked for tracebacks."""
    return os.environ.get(DEBUG, "") not in ("", "0")


def tell(error: BaseException, faults: Path | None = None) -> int:
    """Report an error on the standard error; returns the exit code.

    Args:
        faults: a folder where a fault of this program leaves its traceback.
    """
    told = sentence(error)
    if is_fault(error):
        kept = keep_traceback(error, faults) if faults else None
        traces = f"the traceback is in {kept}" if kept else f"run again with {DEBUG}=1 for the traceback"
        told += f"\nThis is a bug in aot, not in its input; please report it: {traces}."
    typer.secho(told, err=True, fg="red")
    return exit_code(error)


def exit_code(error: BaseException) -> int:
    """By the table above."""
    if isinstance(error, ToldError):
        return error.exit_code
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED
    if isinstance(error, MemoryError):
        return StageOutOfMemoryError.exit_code
    return FAULT if is_fault(error) else BAD_INPUT


def is_fault(error: BaseException) -> bool:
    """Whether this program is to blame: not for its input, its surroundings or a service."""
    expected = (ValueError, OSError, ToldError, ImportError, MemoryError, KeyboardInterrupt)
    return not isinstance(error, expected) and type(error).__module__.partition(".")[0] not in _OTHERS


def sentence(error: BaseException) -> str:
    """What happened, without a URL's credentials: a line, or one for each wrong field."""
    from pydantic import ValidationError

    from aot_core.contracts.explaining import explain, without_credentials

    if isinstance(error, ValidationError):
        told = f"{error.title} is not usable:\n{explain(error)}"
    elif isinstance(error, OSError) and error.errno is not None:
        told = _of_the_system(error)
    elif isinstance(error, KeyboardInterrupt):
        told = "Interrupted."
    elif isinstance(error, MemoryError):
        told = "out of memory; make the job smaller, or give it more"
    elif isinstance(error, ImportError):
        told = f"{error}; install what is missing beside this project"
    elif isinstance(error, ValueError | ToldError):
        told = str(error) or type(error).__name__
    else:
        told = f"{type(error).__name__}: {_first_line(error)}"
    return without_credentials(told)


def keep_traceback(error: BaseException, folder: Path) -> Path | None:
    """Write an error's traceback into a new file that only its owner reads; None where that cannot be done."""
    path = folder / f"{datetime.now(UTC):%Y-%m-%dT%H-%M-%S-%f}.txt"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_private(path, "".join(traceback.format_exception(error)))
    except OSError:
        return None
    return path


def start(app: Callable[[], None]) -> None:
    """Run a command line in UTF-8, whatever the locale: configs, reports and tables are written in it."""
    encodings = {sys.getfilesystemencoding(), getattr(sys.stdout, "encoding", "utf-8")}
    if not all(name.lower() == "utf-8" for name in encodings) and os.environ.get("PYTHONUTF8") != "1":
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], os.environ | {"PYTHONUTF8": "1"})
    app()


def _of_the_system(error: OSError) -> str:
    paths = [str(path) for path in (error.filename, error.filename2) if path is not None]
    named = " -> ".join(path if len(path) <= 200 else f"{path[:200]}..." for path in paths)
    what = error.strerror or type(error).__name__
    told = f"{named}: {what}" if named else str(what)
    fix = _FIXES.get(error.errno or 0)
    return f"{told}; {fix}" if fix else told


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines or [""])[0][:500]
