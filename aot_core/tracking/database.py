"""MLflow's SQLite file, looked at before MLflow opens it.

MLflow makes its tables by some sixty migrations in place, and none of them is a transaction: a process that dies
meanwhile leaves a file that never opens again. So the file is made, and migrated to a newer MLflow, under another name
and renamed. What cannot be used raises an error in one sentence; nothing is ever deleted.

    open_client(uri) --first time in a process--> absent: made
                                                  of an earlier MLflow: a copy is migrated, the old one kept
                                                  half made, no run in it: set aside, made anew
                                                  else: TrackingError
"""

import logging
import os
import shutil
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from filelock import FileLock

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # read when mlflow is imported

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from aot_core.tracking.moved import follow
from aot_core.tracking.protocol import TrackingError

logger = logging.getLogger(__name__)

State = Literal["absent", "current", "other", "garbage"]

_SCHEME = "sqlite:///"
_PATIENCE_SECONDS = 60.0
"""How long another process may hold the file before this one gives up."""
_HOLDS = ("runs", "registered_models", "logged_models")
"""The tables of which a single row is worth keeping."""
_RESTORE = (
    "restore its backup, or move it away and run the same command again: finished stages are in the store and are "
    "logged again, but earlier registered versions are lost"
)
_seen: set[str] = set()

# It logs a traceback of what it also raises, and what it raises is reported by `told`.
logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
logging.getLogger("alembic").setLevel(logging.WARNING)  # a new database reports some 60 migrations


def open_client(uri: str) -> MlflowClient:
    """A client of the tracking server and of the registry, which are one. Raises TrackingError (`prepare`)."""
    prepare(uri)
    return MlflowClient(uri, registry_uri=uri)


def prepare(uri: str) -> None:
    """See that MLflow can open its SQLite file; done once in a process. A server's address is left alone.

    Raises TrackingError for a file that stays locked, that is no database, or that was left half migrated with runs
    in it.
    """
    file = Path(uri.removeprefix(_SCHEME).partition("?")[0]).absolute()
    if not uri.startswith(_SCHEME) or (uri in _seen and file.exists()):
        return
    try:
        if _state(file) != "current":
            file.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(file.with_name(f".{file.name}.lock")):
                _mend(file)
        follow(file)
    except sqlite3.Error as error:
        raise TrackingError(f"MLflow's database {file}: {error}; {_way_out(error)}") from error
    except OSError as error:
        raise TrackingError(f"MLflow's database {file}: {error.strerror or error}; {_way_out(error)}") from error
    _seen.add(uri)


@contextmanager
def told() -> Iterator[None]:
    """An error of MLflow's database or server inside the block becomes a TrackingError: one sentence."""
    try:
        yield
    except MlflowException as error:
        cause = error.__cause__ or error.__context__
        if isinstance(cause, SQLAlchemyError):
            raise TrackingError(_sentence(cause)) from error
        raise TrackingError(f"MLflow: {str(error).splitlines()[0]}") from error
    except SQLAlchemyError as error:
        raise TrackingError(_sentence(error)) from error


def _mend(file: Path) -> None:
    """Make the file what MLflow expects. To be called under its lock."""
    for left in file.parent.glob(f".{file.name}.making-*"):
        left.unlink()  # its maker died, and nobody else ever used it
    state = _state(file)
    if state == "current":
        return
    if state == "garbage":
        raise TrackingError(f"MLflow's database {file} is not an SQLite database, or is damaged; {_RESTORE}")
    making = file.with_name(f".{file.name}.making-{os.getpid()}")
    if state == "absent":
        _make(making)
        making.replace(file)
        return
    held = _rows(file)
    if held:
        # Copied and not renamed, here and below: a kill between two renames would leave no database at all.
        shutil.copyfile(file, making)
    try:
        _make(making)
    except (MlflowException, SQLAlchemyError) as error:
        making.unlink()
        raise TrackingError(
            f"MLflow's database {file} holds {held} and was left half migrated by a process that died "
            f"({_first(error)}); {_RESTORE}"
        ) from error
    aside = _aside(file)
    shutil.copy2(file, aside)
    making.replace(file)
    why = "of another MLflow; it is migrated" if held else "left half made, with no run in it; it is recreated"
    logger.warning("MLflow's database %s was %s; the previous file is kept as %s", file, why, aside.name)


def _state(file: Path) -> State:
    """What stands there. Waits for a process that holds the file. Raises TrackingError where it goes on holding it."""
    if not file.exists() or (file.is_file() and file.stat().st_size == 0 and not _journal(file).exists()):
        return "absent"
    from mlflow.store.db.utils import _all_tables_exist, _get_latest_schema_revision, create_sqlalchemy_engine

    until, asked = time.monotonic() + _PATIENCE_SECONDS, False
    while True:
        try:
            with closing(sqlite3.connect(f"{file.as_uri()}?mode=rw", uri=True, timeout=2)) as database:
                tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
                if "alembic_version" not in tables:
                    return "other"
                ((revision,),) = database.execute("SELECT version_num FROM alembic_version").fetchall() or [("",)]
            break
        except sqlite3.OperationalError as error:
            if "locked" not in str(error):
                raise OSError(None, str(error)) from error
            if time.monotonic() > until:
                raise TrackingError(
                    f"MLflow's database {file} is locked by another process, for {_PATIENCE_SECONDS:g} s now; end that "
                    f"process (`fuser {file}` names it), and run the same command again"
                ) from error
            if not asked:
                logger.warning("waiting for MLflow's database %s, which another process has locked", file)
                asked = True
        except sqlite3.DatabaseError:
            return "garbage"
    if revision != _get_latest_schema_revision():
        return "other"
    engine = create_sqlalchemy_engine(f"{_SCHEME}{file}")
    try:
        return "current" if _all_tables_exist(engine) else "other"
    finally:
        engine.dispose()


def _make(file: Path) -> None:
    """Every table, from nothing or from an earlier MLflow's."""
    from mlflow.store.db.utils import _initialize_tables, _upgrade_db, create_sqlalchemy_engine

    engine = create_sqlalchemy_engine(f"{_SCHEME}{file}")
    try:
        if _rows(file):
            _upgrade_db(engine)
        else:
            _initialize_tables(engine)
    finally:
        engine.dispose()
    with file.open("rb+") as stream:
        os.fsync(stream.fileno())


def _rows(file: Path) -> str:
    """What a database holds that is worth keeping, in words; "" for nothing."""
    held: list[str] = []
    with closing(sqlite3.connect(file)) as database:
        for table in _HOLDS:
            try:
                ((count,),) = database.execute(f"SELECT count(*) FROM {table}").fetchall()
            except sqlite3.OperationalError:  # no such table yet
                continue
            if count:
                held.append(f"{count} {(table if count > 1 else table[:-1]).replace('_', ' ')}")
    return ", ".join(held)


def _aside(file: Path) -> Path:
    return file.with_name(f"{file.name}.backup-{datetime.now(UTC):%Y%m%dT%H%M%S.%f}")


def _journal(file: Path) -> Path:
    return file.with_name(f"{file.name}-journal")


def _sentence(error: SQLAlchemyError) -> str:
    said = str(error.orig) if isinstance(error, DBAPIError) else _first(error)
    return f"MLflow's database: {said}; {_way_out(said)}"


def _way_out(error: object) -> str:
    said = str(error)
    if "locked" in said:
        return "another process has held it for too long; end that process, and run the same command again"
    if "full" in said or "No space" in said:
        return "free some space, and run the same command again: it resumes where it stopped"
    if "readonly" in said or "Read-only" in said or "ermission" in said:
        return "make it writable for this user, or give another --home"
    return "run the same command again; if that does not help, restore the database's backup"


def _first(error: Exception) -> str:
    return str(error).splitlines()[0]
