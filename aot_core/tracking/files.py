"""A run's files, copied to this disk."""

import shutil
from pathlib import Path
from urllib.parse import urlparse
from urllib.request import url2pathname

from mlflow import MlflowClient


def fetch_artifact(client: MlflowClient, run_id: str, path: str, into: Path) -> Path:
    """Copy a file or folder of a run's artifacts into a folder; returns where it is then, by the name that it went by.

    MLflow's own download reads names on a local disk as addresses: '#' cuts them off, '%20' gets another file. Raises
    FileNotFoundError where there is none.
    """
    root = urlparse(client.get_run(run_id).info.artifact_uri or "")
    if root.scheme != "file":
        return Path(client.download_artifacts(run_id, path, str(into)))
    folder = Path(url2pathname(root.path)).resolve()
    source, target = (folder / path).resolve(), into / Path(path).name
    if not source.is_relative_to(folder) or not source.exists():
        raise FileNotFoundError(f"run {run_id} has no artifact {path!r}; its page in MLflow lists those it has")
    if source.is_dir():
        shutil.copytree(source, target)
    else:
        shutil.copyfile(source, target)
    return target
