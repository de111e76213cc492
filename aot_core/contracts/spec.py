"""What a stage's process is told, and what it says back: the two files at the process boundary."""

from typing import Any, Literal

from pydantic import Field

from aot_core.contracts.artifact import StageIdentity, StageName, StageRecord
from aot_core.contracts.base import Frozen
from aot_core.contracts.store import S3Settings


class TrackingTarget(Frozen):
    """The MLflow run that a stage logs to."""

    uri: str
    run_id: str


class Place(Frozen):
    """Where a stage runs. No field of this may change a result, so none is part of an identity."""

    store: str
    """The artifact store: a folder, a `file://` URI or `s3://BUCKET/PREFIX`."""
    s3: S3Settings = S3Settings()
    """How an S3 store is reached."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: int = Field(default=2, ge=1)
    """CPU threads of a stage's mathematics, and processes of a stage that shares its work out."""
    gpu: str | None = Field(default=None, pattern=r"^\d+$")
    """The one GPU that the stage may use; None: all that its process sees, or any one where it has a container."""
    accelerate: str = ""
    """The contents of `accelerate`'s config file, for a stage of several processes; "": each holds all weights."""
    tracking: TrackingTarget | None = None
    campaign: str = ""
    """The campaign's key: containers are labelled with it."""
    home: str = ""
    """The campaign's home: so that maintenance can tell whose containers these are."""


class StageSpec(Frozen):
    """`SPEC.json`: one stage, ready to run anywhere."""

    stage: StageName
    config: dict[str, Any]
    inputs: dict[str, Any]
    identity: StageIdentity
    place: Place

    @property
    def key(self) -> str:
        return self.identity.key

    @property
    def processes(self) -> int:
        """How many processes train together; 1 for a stage that knows no other way."""
        return int(self.config.get("processes", 1))


class StageResult(Frozen):
    """`result.json`: a record, or the error's kind and words."""

    record: StageRecord | None = None
    reused: bool = False
    """Whether the store held the result already."""
    error: Literal["", "bad_input", "out_of_memory", "crash"] = ""
    message: str = ""
