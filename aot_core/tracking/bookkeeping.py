"""What a run holds already, in one artifact of that run: `stages.json`.

    {"stages": {"evaluate.2": {"key": ..., "seconds": ..., "figures": {...}}}, "pictures": ["evaluate/semantic.2"]}

It keeps every figure of every stage, of which the run's metrics are the dozen that people compare, and it tells a
restarted flow what an earlier, killed process has logged. Tags would tell the same, and fill the run's page.
"""

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from mlflow import MlflowClient

from aot_core.tracking.files import fetch_artifact

STAGES_FILE = "stages.json"


def read_stages(client: MlflowClient, run_id: str) -> dict[str, Any]:
    """The artifact; empty where there is none, or a process died while it wrote it: figures are then logged anew."""
    if STAGES_FILE not in [entry.path for entry in client.list_artifacts(run_id)]:
        return {"stages": {}, "pictures": []}
    with TemporaryDirectory() as into:
        text = fetch_artifact(client, run_id, STAGES_FILE, Path(into)).read_text(encoding="utf-8")
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return {"stages": {}, "pictures": []}


def write_stages(client: MlflowClient, run_id: str, held: dict[str, Any]) -> None:
    """Put the artifact in place of the one that is there."""
    client.log_dict(run_id, held, STAGES_FILE)
