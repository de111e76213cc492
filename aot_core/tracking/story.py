"""What MLflow's pages show of a run: its description, its tables, who started it."""

import getpass
import json
from collections.abc import Mapping, Sequence
from typing import Any

from mlflow.entities import RunTag
from mlflow.utils.mlflow_tags import (
    MLFLOW_GIT_COMMIT,
    MLFLOW_LOGGED_ARTIFACTS,
    MLFLOW_RUN_NOTE,
    MLFLOW_SOURCE_NAME,
    MLFLOW_SOURCE_TYPE,
    MLFLOW_USER,
)

from aot_core.tracking.database import open_client
from aot_core.tracking.mlflow_tracking import DATA_DOCS_TAG


def user() -> str:
    """Who runs this process; "unknown" for a user without a name, as a container may have."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "unknown"


def origin_tags(source: str, commit: str) -> dict[str, str]:
    """What fills MLflow's columns "Created by" and "Source".

    Args:
        source: what was started: `aot run`.
        commit: of the source tree, "" where there is none.
    """
    tags = {MLFLOW_USER: user(), MLFLOW_SOURCE_NAME: source, MLFLOW_SOURCE_TYPE: "LOCAL"}
    return tags | ({MLFLOW_GIT_COMMIT: commit} if commit else {})


def describe_run(uri: str, run_id: str, text: str) -> None:
    """Set a run's description, Markdown. The link to its data checks stays below it."""
    client = open_client(uri)
    run = client.get_run(run_id)
    if docs := run.data.tags.get(DATA_DOCS_TAG, ""):
        # The run that the data was made in has a path of its own there, the others an address.
        own = not docs.startswith("runs:/")
        docs_run, path = (run_id, docs) if own else docs.removeprefix("runs:/").split("/", 1)
        page = f"#/experiments/{run.info.experiment_id}/runs/{docs_run}/artifacts/{path}"
        text += f"\n\n[What was checked of the data]({page})"
    client.set_tag(run_id, MLFLOW_RUN_NOTE, text)


def log_table(uri: str, run_id: str, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Put rows of equal keys where MLflow's pages show them as a table (`tables/NAME.json`), whatever was there."""
    client, path = open_client(uri), f"tables/{name}.json"
    columns = list(rows[0]) if rows else []
    client.log_text(run_id, json.dumps({"columns": columns, "data": [list(row.values()) for row in rows]}), path)
    known = json.loads(client.get_run(run_id).data.tags.get(MLFLOW_LOGGED_ARTIFACTS, "[]"))
    entry = {"path": path, "type": "table"}
    if entry not in known:
        client.set_tag(run_id, MLFLOW_LOGGED_ARTIFACTS, json.dumps([*known, entry]))


def set_tags(uri: str, run_id: str, tags: Mapping[str, str]) -> None:
    """Set tags of a run; what a tag said before is replaced."""
    open_client(uri).log_batch(run_id, tags=[RunTag(key, value) for key, value in tags.items()])
