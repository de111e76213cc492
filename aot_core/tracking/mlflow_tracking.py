"""Campaigns in MLflow: a parent run a campaign, a child run a round, checkpoints as LoggedModels.

Two users. A stage, in whatever process, logs live through `MlflowTracker`. The flow opens and closes the runs
and logs what finished stages have left in their records; every such function finds what an earlier, killed
process logged already (`tracking.bookkeeping`) and does not log it twice. Nothing here touches MLflow's global state
(active run, tracking URI), so several campaigns can be tracked from one process.
"""

import json
import logging
import math
import os
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlparse

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # read when mlflow is imported

from mlflow import MlflowClient
from mlflow.entities import (
    Dataset,
    DatasetInput,
    InputTag,
    LoggedModelOutput,
    LoggedModelStatus,
    Metric,
    Param,
    Run,
    RunTag,
    ViewType,
)
from mlflow.entities.lifecycle_stage import LifecycleStage
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_ALREADY_EXISTS, ErrorCode
from mlflow.utils.mlflow_tags import (
    MLFLOW_DATASET_CONTEXT,
    MLFLOW_MODEL_IS_EXTERNAL,
    MLFLOW_PARENT_RUN_ID,
    MLFLOW_RUN_NOTE,
)

from aot_core.contracts.artifact import ArtifactRef
from aot_core.tracking import files
from aot_core.tracking.bookkeeping import read_stages, write_stages
from aot_core.tracking.database import open_client

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL.Image import Image

CAMPAIGN_TAG = "aot.campaign"
ROUND_TAG = "aot.round"
DATA_DOCS_TAG = "aot.data_docs"
ARTIFACT_SHA_TAG = "aot.artifact_sha256"
ARTIFACT_URI_TAG = "aot.artifact_uri"

KIND_TAG = "mlflow.experimentKind"
_KIND = "custom_model_development"
"""Trainings with metrics and models; without it MLflow's pages take an experiment for one of prompts and traces."""
_PARAMS_PER_BATCH = 100
"""MLflow's limit."""
_LONGEST_PARAM = 6000
"""MLflow's limit, in characters."""
_NOT_IN_NAMES = re.compile(r"[^/\w.\- :]")
"""What MLflow refuses in a metric's name."""
_DIGEST = 36
"""MLflow keeps so many characters of a data set's digest."""

logger = logging.getLogger(__name__)


class MlflowTracker:
    """Logs a stage's live figures and pictures to one run. Implements `tracking.protocol.Tracker`."""

    def __init__(self, uri: str, run_id: str) -> None:
        self.run_id = run_id
        self._client = open_client(uri)

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """See `Tracker.log_metrics`. Raises ValueError for a figure that is not finite."""
        _log_metrics(self._client, self.run_id, metrics, step or 0)

    def log_image(self, name: str, image: "Image") -> None:
        """See `Tracker.log_image`."""
        self._client.log_image(self.run_id, image, artifact_file=name)

    def log_figure(self, name: str, figure: "Figure") -> None:
        """See `Tracker.log_figure`."""
        self._client.log_figure(self.run_id, figure, name)

    def log_artifact(self, path: Path, folder: str = "") -> None:
        """See `Tracker.log_artifact`. Raises FileNotFoundError where there is none."""
        log_artifact(self._client.tracking_uri, self.run_id, path, folder)

    def set_tag(self, key: str, value: str) -> None:
        """See `Tracker.set_tag`."""
        self._client.set_tag(self.run_id, key, value)


def open_campaign_run(
    uri: str,
    experiment: str,
    campaign_key: str,
    name: str,
    params: Mapping[str, Any],
    tags: Mapping[str, str] | None = None,
    artifact_root: Path | None = None,
    note: str = "",
) -> str:
    """The id of the campaign's parent run, RUNNING: the run that this campaign has already, or a new one.

    Args:
        uri: `sqlite:///FILE` or a server's address.
        experiment: made where it does not exist.
        campaign_key: what identifies the campaign; the same key continues the same run.
        params: nested mappings become dotted names. Logged once: MLflow's params are immutable.
        artifact_root: where a new experiment keeps its files; beside the database (`artifacts/`) unless
            given.
        note: the run's description; empty leaves it as it is.
    """
    client = open_client(uri)
    experiment_id = _experiment(client, experiment, artifact_root)
    all_tags = {**(tags or {}), CAMPAIGN_TAG: campaign_key} | ({MLFLOW_RUN_NOTE: note} if note else {})
    run = _find_run(client, experiment_id, {CAMPAIGN_TAG: campaign_key}, parent=None)
    if run is None:
        run = client.create_run(experiment_id, tags=all_tags, run_name=name)
    else:
        run = _reopen(client, run, all_tags)
    _log_params(client, run, params)
    return run.info.run_id


def open_round_run(
    uri: str,
    experiment: str,
    parent_id: str,
    round_index: int,
    params: Mapping[str, Any] | None = None,
    tags: Mapping[str, str] | None = None,
) -> str:
    """The id of a round's child run, RUNNING: found again by its tags, or made.

    Args:
        params: of the round's stages, as in `open_campaign_run`.
    """
    client = open_client(uri)
    experiment_id = _experiment(client, experiment, None)
    told = {MLFLOW_PARENT_RUN_ID: parent_id, ROUND_TAG: str(round_index)}
    run = _find_run(client, experiment_id, told, parent=parent_id)
    if run is None:
        run = client.create_run(experiment_id, tags={**(tags or {}), **told}, run_name=f"round-{round_index}")
    else:
        run = _reopen(client, run, tags or {})
    _log_params(client, run, {"round": round_index, **(params or {})})
    return run.info.run_id


def close_run(uri: str, run_id: str, status: Literal["FINISHED", "FAILED", "KILLED"] = "FINISHED") -> None:
    """End a run, also one whose process died."""
    open_client(uri).set_terminated(run_id, status)


def log_stage_summary(
    uri: str,
    run_id: str,
    stage: str,
    key: str,
    metrics: Mapping[str, float],
    seconds: float,
    step: int = 0,
    headlines: Mapping[str, float] | None = None,
) -> bool:
    """Keep a finished stage's figures in the run's `stages.json`, and log its headlines as metrics.

    Done once for a key: False where the run holds them already (a reused stage, a restarted flow).

    Args:
        step: of the headlines; with it the parent run can hold one point a round.
        headlines: name to figure. Raises ValueError, as for `metrics`, where one is not finite.
    """
    client = open_client(uri)
    named = f"{stage}.{step}" if step else stage
    held = read_stages(client, run_id)
    if held["stages"].get(named, {}).get("key") == key:
        return False
    _finite({f"{stage}/{name}": value for name, value in metrics.items()})
    _log_metrics(client, run_id, headlines or {}, step)
    held["stages"][named] = {"key": key, "seconds": seconds, "figures": dict(metrics)}
    write_stages(client, run_id, held)
    return True


def log_checkpoint(
    uri: str,
    run_id: str,
    name: str,
    artifact: ArtifactRef,
    metrics: Mapping[str, float] | None = None,
    tags: Mapping[str, str] | None = None,
    step: int = 0,
) -> str:
    """Note a checkpoint as an MLflow LoggedModel and return its model id; the same one if it is noted
    already.

    An *external* model: the weights stay in the artifact store, where `artifact` finds them; MLflow holds the
    reference, the figures and the link to the run.
    """
    client = open_client(uri)
    experiment_id = client.get_run(run_id).info.experiment_id
    known = client.search_logged_models(
        [experiment_id],
        filter_string=f"name = '{name}' AND source_run_id = '{run_id}' "
        f"AND tags.`{ARTIFACT_SHA_TAG}` = '{artifact.sha256}'",
    )
    if known and known[0].status == LoggedModelStatus.READY:
        return known[0].model_id
    reference = {ARTIFACT_URI_TAG: artifact.uri, ARTIFACT_SHA_TAG: artifact.sha256}
    all_tags = {**(tags or {}), **reference, MLFLOW_MODEL_IS_EXTERNAL: "true"}
    # One that is not READY was begun by a process that was killed: go on with it.
    model = (
        known[0]
        if known
        else client.create_logged_model(experiment_id, name, run_id, all_tags, model_type="checkpoint")
    )
    client.log_outputs(run_id, [LoggedModelOutput(model.model_id, step)])
    # In one request: to a team's server each costs a check of the password.
    _log_metrics(client, run_id, metrics or {}, step, model.model_id)
    client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)
    return model.model_id


def log_dataset(
    uri: str,
    run_id: str,
    name: str,
    artifact: ArtifactRef,
    sources: Mapping[str, Any],
    profile: Mapping[str, float],
) -> bool:
    """Note a data set as an input of a run, so that a model version leads to its run, the run to the data set's hash,
    and that to the hashes of what it was made of. False where the run holds it already.

    Args:
        sources: what it was made of: input name to sha256 (a hub model: its name).
        profile: figures to be shown with it.
    """
    client = open_client(uri)
    digest = artifact.sha256[:_DIGEST]
    inputs = client.get_run(run_id).inputs
    held = inputs.dataset_inputs if inputs else []
    if any((one.dataset.name, one.dataset.digest) == (name, digest) for one in held):
        return False
    source = {"uri": artifact.uri, "sha256": artifact.sha256, "made_of": dict(sources)}
    dataset = Dataset(
        name=name, digest=digest, source_type="aot", source=json.dumps(source), profile=json.dumps(dict(profile))
    )
    context = [InputTag(MLFLOW_DATASET_CONTEXT, "training")]
    client.log_inputs(run_id, [DatasetInput(dataset, context)])
    return True


def link_data_docs(uri: str, run_id: str, docs_run_id: str, report: Path) -> str:
    """Link a run to the pages about what was checked of its data; returns their address, `runs:/RUN/PATH`.

    Great Expectations' Data Docs stand in the run that the data was made in. Where the data was found in the store that
    run has none, and the guard's own report, which goes with the data, stands in for them.

    Args:
        run_id: what gets the link, as a tag and in its description.
        docs_run_id: the run that the stage logs to.
        report: the guard's report.
    """
    client = open_client(uri)
    run = client.get_run(docs_run_id)
    path = run.data.tags.get(DATA_DOCS_TAG)
    if path is None:
        path = f"data_guard/{report.name}"
        client.log_artifact(docs_run_id, str(report), "data_guard")
        client.set_tag(docs_run_id, DATA_DOCS_TAG, path)
    address = f"runs:/{docs_run_id}/{path}"
    page = f"#/experiments/{run.info.experiment_id}/runs/{docs_run_id}/artifacts/{path}"
    client.set_tag(run_id, DATA_DOCS_TAG, address)
    link = f"[What was checked of the data]({page})"
    note = client.get_run(run_id).data.tags.get(MLFLOW_RUN_NOTE, "")
    if link not in note:
        client.set_tag(run_id, MLFLOW_RUN_NOTE, f"{note}\n\n{link}" if note else link)
    return address


def log_gallery(uri: str, run_id: str, key: str, image: "Image", step: int) -> bool:
    """Log a picture of a round under `key`, with a slider over the steps; False where it is there already."""
    client, named = open_client(uri), f"{key}.{step}"
    held = read_stages(client, run_id)
    if named in held["pictures"]:
        return False
    client.log_image(run_id, image, key=key, step=step)
    write_stages(client, run_id, {**held, "pictures": [*held["pictures"], named]})
    return True


def log_artifact(uri: str, run_id: str, path: Path, folder: str = "") -> None:
    """Log a file, or all of a folder, under `folder` in the run's artifacts. Raises FileNotFoundError."""
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist; write it before logging it")
    client = open_client(uri)
    if path.is_dir():
        client.log_artifacts(run_id, str(path), folder or None)
    else:
        client.log_artifact(run_id, str(path), folder or None)


def fetch_artifact(uri: str, run_id: str, path: str, into: Path) -> Path:
    """Copy a file or folder of a run's artifacts into a folder (`tracking.files.fetch_artifact`)."""
    return files.fetch_artifact(open_client(uri), run_id, path, into)


def _log_params(client: MlflowClient, run: Run, params: Mapping[str, Any]) -> None:
    flat = {key: _param(value) for key, value in _dotted(params).items() if key not in run.data.params}
    missing = [Param(key, value) for key, value in flat.items()]
    for first in range(0, len(missing), _PARAMS_PER_BATCH):
        client.log_batch(run.info.run_id, params=missing[first : first + _PARAMS_PER_BATCH])


def _log_metrics(
    client: MlflowClient, run_id: str, metrics: Mapping[str, float], step: int, model_id: str | None = None
) -> None:
    now = time.time_ns() // 1_000_000
    values = [Metric(key, value, now, step, model_id) for key, value in _finite(metrics).items()]
    if values:
        client.log_batch(run_id, metrics=values)


def _finite(metrics: Mapping[str, float]) -> dict[str, float]:
    """The figures as floats, by names that MLflow takes ("science & technology" is a category of MMStar).

    Raises ValueError naming the ones that are NaN or infinite, before any is logged.
    """
    wrong = [f"{key} = {value}" for key, value in metrics.items() if not math.isfinite(value)]
    if wrong:
        raise ValueError(f"metrics are not finite: {', '.join(wrong)}; find where the first one arises")
    return {_NOT_IN_NAMES.sub("_", key): float(value) for key, value in metrics.items()}


def _experiment(client: MlflowClient, name: str, artifact_root: Path | None) -> str:
    """The experiment's id; made where it does not exist, also when another process makes it at the same
    time."""
    found = client.get_experiment_by_name(name)
    if found is not None and found.lifecycle_stage == LifecycleStage.DELETED:
        # Its name stays taken, and with it its runs: what somebody deleted on MLflow's pages goes on where it was.
        client.restore_experiment(found.experiment_id)
        logger.warning("MLflow's experiment %r had been deleted; it is restored, with its runs", name)
    if found is not None:
        if KIND_TAG not in found.tags:
            client.set_experiment_tag(found.experiment_id, KIND_TAG, _KIND)
        return found.experiment_id
    root = artifact_root or _beside_database(client.tracking_uri)
    location = (root.expanduser().resolve() / name).as_uri() if root else None
    try:
        return client.create_experiment(name, location, tags={KIND_TAG: _KIND})
    except MlflowException as error:
        if error.error_code != ErrorCode.Name(RESOURCE_ALREADY_EXISTS):
            raise
        found = client.get_experiment_by_name(name)
        assert found is not None
        return found.experiment_id


def _beside_database(uri: str) -> Path | None:
    """For SQLite `artifacts/` beside the file (MLflow's own default is the working directory), else None."""
    parsed = urlparse(uri)
    return Path(parsed.path.removeprefix("/")).parent / "artifacts" if parsed.scheme == "sqlite" else None


def _find_run(client: MlflowClient, experiment_id: str, tags: Mapping[str, str], parent: str | None) -> Run | None:
    """The oldest run with these tags, and with this parent or none. One that was deleted is restored, where there is no
    other: its figures are this campaign's."""
    condition = " AND ".join(f"tags.`{key}` = '{value}'" for key, value in tags.items())
    for view in (ViewType.ACTIVE_ONLY, ViewType.DELETED_ONLY):
        for run in client.search_runs([experiment_id], condition, view, order_by=["attributes.start_time ASC"]):
            if run.data.tags.get(MLFLOW_PARENT_RUN_ID) != parent:
                continue
            if view == ViewType.DELETED_ONLY:
                client.restore_run(run.info.run_id)
                logger.warning("MLflow's run %r had been deleted; it is restored", run.info.run_name)
            return run
    return None


def _reopen(client: MlflowClient, run: Run, tags: Mapping[str, str]) -> Run:
    client.update_run(run.info.run_id, status="RUNNING")
    changed = [RunTag(key, value) for key, value in tags.items() if run.data.tags.get(key) != value]
    if changed:
        client.log_batch(run.info.run_id, tags=changed)
    return run


def _param(value: Any) -> str:
    """A parameter's text, the end left out where MLflow would refuse it: the summary has the whole."""
    text = str(value)
    return text if len(text) <= _LONGEST_PARAM else f"{text[: _LONGEST_PARAM - 30]}... ({len(text):,} characters)"


def _dotted(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """`{"a": {"b": 1}}` as `{"a.b": 1}`; what is None or empty is left out."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= _dotted(value, f"{prefix}{key}.")
        elif value is not None and value != "":
            flat[prefix + key] = value
    return flat
