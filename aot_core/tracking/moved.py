"""A home that was moved or copied: MLflow's SQLite file names its files by absolute path, and still names the old one.

A run in the new place would write its files into the old folder, which it would recreate, and the registered models
would load from there, or not at all. So before MLflow opens the file, addresses below its old folder are rewritten for
its new one. A server's files, and those of an experiment that somebody keeps
elsewhere, are left alone.
"""

import logging
import sqlite3
from contextlib import closing
from pathlib import Path

logger = logging.getLogger(__name__)

ARTIFACTS = "artifacts"
"""Beside the file: where this project keeps MLflow's files (`mlflow_tracking`)."""
ADDRESSES = {
    "experiments": "artifact_location",
    "runs": "artifact_uri",
    "logged_models": "artifact_location",
    "model_versions": "storage_location",
}
"""Table to the column that holds an address. A promise of MLflow's that `tests/test_upgrades.py` holds it to."""


def follow(file: Path) -> int:
    """Have a database name the files that stand beside it; returns how many addresses were changed.

    Only addresses whose files stand in the new place are changed, all in one transaction.

    Args:
        file: a current MLflow database, `HOME/mlflow/mlflow.db`.
    """
    file = file.resolve()  # as the addresses were, when they were made
    here = (file.parent / ARTIFACTS).as_uri()
    with closing(sqlite3.connect(file, timeout=60)) as database:
        changed = 0
        for (before,) in database.execute("SELECT DISTINCT artifact_location FROM experiments").fetchall():
            there, separator, experiment = str(before).rpartition(f"/{ARTIFACTS}/")
            there += separator.rstrip("/")
            is_ours = there.startswith("file:") and separator and there != here
            if not is_ours or not (file.parent / ARTIFACTS / experiment).is_dir():
                continue
            for table, column in ADDRESSES.items():
                told = f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE {column} = ? OR {column} LIKE ?"
                values = (f"{here}/{experiment}", len(str(before)) + 1, before, _starting(f"{before}/"))
                changed += database.execute(f"{told} ESCAPE '!'", values).rowcount
        database.commit()
    if changed:
        logger.warning("this home was moved or copied: %d of MLflow's addresses now point to %s", changed, here)
    return changed


def _starting(text: str) -> str:
    for special in ("!", "%", "_"):
        text = text.replace(special, f"!{special}")
    return f"{text}%"
