"""The registered Defender: versions, aliases, and what each version is measured to be.

A campaign's last Defender becomes a version of `aot-defender`: a pyfunc with its weights inside, so that

    model = mlflow.pyfunc.load_model("models:/aot-defender@champion")
    model.predict({"image": ["x.png"], "question": ["Is there a red ring?\\nA. yes\\nB. no"]})

answers wherever `aot_core` is installed. The version's tags say which artifact it is and how it did on which
evaluation set; whether it may lead is decided elsewhere (`aot_core.evaluation.gate`), and the alias is moved elsewhere
(`aot_core.promotion.transaction`), under a lock and with a ledger.
"""

import base64
import io
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, NamedTuple

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # read when mlflow is imported

import mlflow
import pandas as pd
from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.models import Model, ModelSignature
from mlflow.protos.databricks_pb2 import (
    INVALID_PARAMETER_VALUE,
    RESOURCE_ALREADY_EXISTS,
    RESOURCE_DOES_NOT_EXIST,
    ErrorCode,
)
from mlflow.types import ColSpec, Schema
from PIL import Image

from aot_core.contracts.artifact import ArtifactRef, ExternalRef
from aot_core.contracts.learning import DType
from aot_core.tracking.database import open_client
from aot_core.tracking.mlflow_tracking import ARTIFACT_SHA_TAG, ARTIFACT_URI_TAG, fetch_artifact

DEFENDER = "aot-defender"
CHAMPION = "champion"
CHALLENGER = "challenger"
BASE_TAG = "aot.base"
LINEAGE_TAG = "aot.lineage."
OWNER_TAG = "aot.owner"
EVALUATION_TAG = f"{LINEAGE_TAG}evaluation"
EXAM_FILE = "promotion/exam.json"
"""Among a campaign's run's artifacts: the inputs of the evaluation that its version was judged by."""
METRIC_TAG = "aot.metric."
LEDGER_TAG = "aot.ledger."

_CODE = Path(__file__).with_name("defender_pyfunc.py")
_REQUIRED = ("torch", "transformers", "peft", "pillow", "pydantic", "pyarrow")
"""What the pyfunc needs besides `aot_core` itself, which no index holds."""
_NOT_THERE = {ErrorCode.Name(RESOURCE_DOES_NOT_EXIST), ErrorCode.Name(INVALID_PARAMETER_VALUE)}
"""A registered model that is not there, an alias that is not there."""
_DESCRIPTION = "The Defender of AOT campaigns: an image and a question in, the answer out."

SIGNATURE = ModelSignature(
    inputs=Schema(
        [
            ColSpec("string", "image"),
            ColSpec("string", "question"),
            ColSpec("string", "options", required=False),
        ]
    ),
    outputs=Schema([ColSpec("string", "letter"), ColSpec("string", "answer"), ColSpec("string", "completion")]),
)


@dataclass(frozen=True)
class TrainedDefender:
    """A Defender that is to be registered."""

    checkpoint: Path
    """The artifact's folder, with `model/` (full weights) or `adapter/` (LoRA on `base`) in it."""
    artifact: ArtifactRef
    base: ExternalRef
    """Needed again at load time where the checkpoint is an adapter, which is only ever put on the base that it was
    trained on."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    """Kept as the version's tags (`aot.metric.NAME`)."""
    tags: Mapping[str, str] = field(default_factory=dict)
    packages: Mapping[str, str] = field(default_factory=dict)
    """Versions, by name, of what it was evaluated with: the orchestrator may have none of it installed."""
    max_new_tokens: int = 16
    """Tokens of an answer, at most: as many as it was evaluated with."""
    dtype: DType = "float32"
    device: str = "cpu"
    """Where the loaded model answers."""

    @property
    def kind(self) -> Literal["model", "adapter"]:
        """The checkpoint's folder. Raises ValueError where it holds neither."""
        for kind in ("model", "adapter"):
            if (self.checkpoint / kind).is_dir():
                return kind
        raise ValueError(f"checkpoint {self.checkpoint} holds no `model` and no `adapter`; give a Defender's artifact")


def register_defender(uri: str, run_id: str, defender: TrainedDefender, name: str = DEFENDER) -> str:
    """Register a trained Defender and return its version; the version of the same artifact if there is one.

    Raises ValueError where its checkpoint holds no weights.
    """
    client = open_client(uri)
    known = find_version(uri, defender.artifact.sha256, name)
    if known is not None:
        return known
    kind, base = defender.kind, defender.base
    figures = {METRIC_TAG + key: repr(float(value)) for key, value in defender.metrics.items()}
    reference = {
        ARTIFACT_URI_TAG: defender.artifact.uri,
        ARTIFACT_SHA_TAG: defender.artifact.sha256,
        BASE_TAG: base.name,
    }
    held = {package: defender.packages.get(package) or version(package) for package in _REQUIRED}
    with _active_run(client, uri, run_id):
        info = mlflow.pyfunc.log_model(
            name=name,
            python_model=str(_CODE),
            artifacts={"weights": str(defender.checkpoint / kind)},
            model_config={
                "kind": kind,
                "base": base.name,
                "base_sha256": base.sha256,
                "dtype": defender.dtype,
                "max_new_tokens": defender.max_new_tokens,
                "device": defender.device,
            },
            signature=SIGNATURE,
            input_example=_example(),
            pip_requirements=[f"{package}=={number.partition('+')[0]}" for package, number in held.items()],
        )
        _make_model(client, name)
        # Not by log_model's own `registered_model_name`: a version and its tags must appear together, or a
        # process killed between the two would leave a version that nobody knows again.
        made = client.create_model_version(
            name,
            source=info.model_uri,
            run_id=run_id,
            tags={**defender.tags, **figures, **reference},
            model_id=info.model_id,
        )
    return str(made.version)


def _make_model(client: MlflowClient, name: str) -> None:
    """Make the registered model where there is none, also when another campaign makes it at the same time."""
    try:
        client.create_registered_model(name, description=_DESCRIPTION)
    except MlflowException as error:
        if error.error_code != ErrorCode.Name(RESOURCE_ALREADY_EXISTS):
            raise


def find_version(uri: str, artifact_sha256: str, name: str = DEFENDER) -> str | None:
    """The newest version made of an artifact, None where there is none."""
    client = open_client(uri)
    found = client.search_model_versions(f"name = '{name}'", order_by=["version_number DESC"])
    return next((str(v.version) for v in found if v.tags.get(ARTIFACT_SHA_TAG) == artifact_sha256), None)


class Packed(NamedTuple):
    """A registered version's contents on this disk."""

    weights: Path
    config: dict[str, Any]
    """What it was registered with: kind, base, base_sha256, dtype, device."""


def download(uri: str, model_version: str, name: str, into: Path) -> Packed:
    """Fetch a registered version. Raises ValueError where it is no Defender."""
    into.mkdir(parents=True, exist_ok=True)
    with lent_tracking_uri(uri):
        folder = Path(download_artifacts(f"models:/{name}/{model_version}", dst_path=str(into)))
        flavor = Model.load(str(folder)).flavors["python_function"]
    config = flavor.get("config", {})
    if config.get("kind") not in ("model", "adapter"):
        raise ValueError(f"{name} version {model_version} is no Defender of this project; name another")
    return Packed(folder / flavor["artifacts"]["weights"]["path"], config)


def read_exam(uri: str, model: str, model_version: str) -> bytes | None:
    """The inputs of a version's evaluation, as its campaign's run keeps them (JSON); None where it keeps none."""
    client = open_client(uri)
    run_id = client.get_model_version(model, model_version).run_id
    folder, _, _ = EXAM_FILE.rpartition("/")
    if run_id is None or EXAM_FILE not in [entry.path for entry in client.list_artifacts(run_id, folder)]:
        return None
    with TemporaryDirectory() as into:
        return fetch_artifact(uri, run_id, EXAM_FILE, Path(into)).read_bytes()


def set_alias(uri: str, alias: str, model_version: str, name: str = DEFENDER) -> None:
    """Point an alias at a version; it leaves the version that it pointed at."""
    open_client(uri).set_registered_model_alias(name, alias, model_version)


def get_alias(uri: str, alias: str, name: str = DEFENDER) -> tuple[str, dict[str, str]] | None:
    """The version that an alias points at, and its tags; None where there is no such model or alias."""
    try:
        found: ModelVersion = open_client(uri).get_model_version_by_alias(name, alias)
    except MlflowException as error:
        if error.error_code in _NOT_THERE:
            return None
        raise
    return str(found.version), dict(found.tags)


def get_version(uri: str, model_version: str, name: str = DEFENDER) -> tuple[str, dict[str, str]] | None:
    """A version and its tags, None where there is none of that number."""
    try:
        found: ModelVersion = open_client(uri).get_model_version(name, model_version)
    except MlflowException as error:
        if error.error_code in _NOT_THERE:
            return None
        raise
    return str(found.version), dict(found.tags)


def remove_alias(uri: str, alias: str, name: str = DEFENDER) -> None:
    """Take an alias away, from whichever version has it; nothing happens where none has."""
    if get_alias(uri, alias, name) is not None:
        open_client(uri).delete_registered_model_alias(name, alias)


def tag_version(uri: str, model_version: str, tags: Mapping[str, str], name: str = DEFENDER) -> None:
    """Set tags on a version; what a tag said before is replaced."""
    client = open_client(uri)
    for key, value in tags.items():
        client.set_model_version_tag(name, model_version, key, value)


def describe_version(uri: str, model_version: str, text: str, name: str = DEFENDER) -> None:
    """Set a version's description, Markdown: its model card."""
    open_client(uri).update_model_version(name, model_version, description=text)


def show_ledger(uri: str, lines: Mapping[str, str], name: str = DEFENDER) -> None:
    """Put the ledger's lines among the registered model's tags (`aot.ledger.0007`), where MLflow's pages show them.

    Only what is not there yet is written: the ledger itself stands in the store.
    """
    client = open_client(uri)
    known = client.get_registered_model(name).tags
    for number, line in lines.items():
        key = LEDGER_TAG + number
        if known.get(key) != line:
            client.set_registered_model_tag(name, key, line)


def get_champion(uri: str, name: str = DEFENDER) -> tuple[str, dict[str, str]] | None:
    """The leading version and its tags, None where none leads."""
    return get_alias(uri, CHAMPION, name)


def version_metrics(tags: Mapping[str, str]) -> dict[str, float]:
    """The figures that `register_defender` kept in a version's tags."""
    return {key.removeprefix(METRIC_TAG): float(value) for key, value in tags.items() if key.startswith(METRIC_TAG)}


def gate_figures(tags: Mapping[str, str]) -> dict[str, float]:
    """The same by the names that the gate's decisions and the ledger use (`challenger/strict/clean`)."""
    named = {name.replace("strict.", "strict/", 1): value for name, value in version_metrics(tags).items()}
    return {f"challenger/{name}": value for name, value in named.items()}


@contextmanager
def _active_run(client: MlflowClient, uri: str, run_id: str) -> Iterator[None]:
    """Model logging and registering look at the global tracking URI and active run: lend ours, leave no
    trace."""
    status = client.get_run(run_id).info.status
    with lent_tracking_uri(uri):
        try:
            with mlflow.start_run(run_id=run_id):
                yield
        finally:
            client.update_run(run_id, status=status)


@contextmanager
def lent_tracking_uri(uri: str) -> Iterator[None]:
    """MLflow's global tracking URI, lent for a while."""
    previous = mlflow.get_tracking_uri() if mlflow.is_tracking_uri_set() else None
    mlflow.set_tracking_uri(uri)
    try:
        yield
    finally:
        mlflow.set_tracking_uri(previous)  # pyright: ignore[reportArgumentType]: None unsets


def _example() -> Any:
    """One row that every Defender can be asked: a grey picture, as base64."""
    buffer = io.BytesIO()
    Image.new("RGB", (64, 64), (205, 205, 205)).save(buffer, format="PNG")
    row = {
        "image": base64.b64encode(buffer.getvalue()).decode(),
        "question": "Is there a red ring?\nA. yes\nB. no\nAnswer with \\boxed{X}.",
        "options": "",
    }
    return pd.DataFrame([row])
