"""What a campaign has done so far: written after every stage, shown by `aot status`, rendered by the report."""

from typing import Any, Literal

from pydantic import Field

from aot_core.contracts.artifact import StageName, StageRecord
from aot_core.contracts.base import Frozen
from aot_core.contracts.promotion import Decision

PICTURES_FOLDER = "pictures"
"""Folder of the artifact in which a stage leaves images for people (PNG)."""


class StageStep(Frozen):
    """One finished stage of a campaign."""

    round: int
    """0 is data, warm start and the first evaluation; 1..N are the rounds."""
    record: StageRecord
    reused: bool
    """Whether the store held the result when this run of the campaign asked for it."""
    pictures: tuple[str, ...] = ()
    """Absolute paths of the PNG files in the artifact's `pictures/`."""
    links: dict[str, str] = Field(default={})
    """File of the artifact to a presigned link, where it lies in a bucket; it expires after a week."""


class CampaignSummary(Frozen):
    """`summary.json` of a campaign. Machine-written; rewritten whole after every stage."""

    name: str
    key: str
    """Hash of config, base models and source contents. The same key continues the same campaign."""
    config: dict[str, Any]
    labels: dict[str, str] = Field(default={})
    """Its owner (`aot.owner`) and its tags, as its MLflow run has them."""
    note: str = ""
    """Its purpose."""
    status: Literal["running", "finished", "failed"] = "running"
    message: str = ""
    """Why it failed."""
    warnings: tuple[str, ...] = ()
    """Warnings for readers of its figures: drift, an exhausted budget, a rejected edition."""
    started_at: str
    updated_at: str
    mlflow_uri: str = ""
    mlflow_run_id: str = ""
    registered_version: str = ""
    """The registered version of its Defender, once there is one."""
    aliases: tuple[str, ...] = ()
    """The aliases of that version."""
    promotion_reason: str = ""
    """The gate's verdict and its outcome."""
    decision: Decision | None = None
    """The gate's record."""
    links: dict[str, str] = Field(default={})
    """Name to address of the pages about it: MLflow's, Prefect's, the gate's decision beside the report."""
    steps: tuple[StageStep, ...] = ()

    def find(self, stage: StageName, round_index: int) -> StageRecord | None:
        """The record of a stage in a round, if it is finished."""
        return next((s.record for s in self.steps if s.round == round_index and s.record.stage == stage), None)
