"""An open campaign: where its stages run, its MLflow runs, and the summary that grows with every stage.

Everything lies under one home: `store/`, `mlflow/`, `prefect/`, `campaigns/NAME-KEY/summary.json`, `locks/`.
"""

import os
from collections.abc import Generator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from filelock import FileLock, Timeout
from PIL import Image
from rich.console import Console

from aot_core.contracts.artifact import ExternalRef, StageName, StageRecord
from aot_core.contracts.base import sha256_of
from aot_core.contracts.campaign import CampaignConfig
from aot_core.contracts.spec import Place, TrackingTarget
from aot_core.contracts.summary import PICTURES_FOLDER, CampaignSummary, StageStep
from aot_core.home import Home
from aot_core.stages.plan import pin_model, pin_source
from aot_core.store import open_store
from aot_core.tracking import mlflow_tracking as tracking

_CHECKPOINTS: dict[StageName, str] = {
    "warm_start_attacker": "attacker",
    "warm_start_defender": "defender",
    "attacker_round": "attacker",
    "defender_round": "defender",
}
"""The stages whose artifact is a model, and whose it is."""


class CampaignBusyError(RuntimeError):
    """Another process is running this very campaign."""


class OpenCampaign:
    """A campaign while it runs. A context manager: leaving it closes the MLflow runs and frees the lock."""

    def __init__(self, config: CampaignConfig, home: Home) -> None:
        self.config, self.home = config, home
        self.attacker_base: ExternalRef = pin_model(config.models.attacker)
        self.defender_base: ExternalRef = pin_model(config.models.defender)
        self.source: ExternalRef | None = pin_source(config.source_folder)
        self.key = campaign_key(config, self.attacker_base, self.defender_base, self.source)
        self._console = Console(stderr=True)
        self._rounds: dict[int, str] = {}
        self._lock = FileLock(home.lock_file(f"campaign-{self.key}"), timeout=0)
        self.folder = home.campaign_folder(config.name, self.key)

    def __enter__(self) -> Self:
        try:
            self._lock.acquire()
        except Timeout as error:
            raise CampaignBusyError(
                f"campaign {self.config.name!r} ({self.key[:12]}) is being run by another process on this home; wait "
                "for it, or change the config (another seed is another campaign)"
            ) from error
        run_id = tracking.open_campaign_run(
            self.home.mlflow_uri,
            experiment="aot",
            campaign_key=self.key,
            name=self.config.name,
            params=self.config.model_dump(mode="json"),
            tags={"aot.home": str(self.home.root)},
        )
        now = _now()
        self.summary = CampaignSummary(
            name=self.config.name,
            key=self.key,
            config=self.config.model_dump(mode="json"),
            started_at=now,
            updated_at=now,
            mlflow_uri=self.home.mlflow_uri,
            mlflow_run_id=run_id,
        )
        self.update()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        status = "FINISHED" if kind is None else "KILLED" if kind is KeyboardInterrupt else "FAILED"
        self.update(status="finished" if kind is None else "failed", message=str(error) if error else "")
        for run_id in [*self._rounds.values(), self.summary.mlflow_run_id]:
            tracking.close_run(self.home.mlflow_uri, run_id, status)
        self._lock.release()

    def place(self, round_index: int, *, tracked: bool = True) -> Place:
        """Where a stage of a round runs, and what it logs to if it is tracked."""
        settings = self.config.run
        target = TrackingTarget(uri=self.home.mlflow_uri, run_id=self.round_run(round_index)) if tracked else None
        return Place(store=str(self.home.store), device=settings.device, threads=settings.threads, tracking=target)

    def round_run(self, round_index: int) -> str:
        """The MLflow run of a round, opened when it is first asked for."""
        if round_index not in self._rounds:
            self._rounds[round_index] = tracking.open_round_run(
                self.home.mlflow_uri, "aot", self.summary.mlflow_run_id, round_index
            )
        return self._rounds[round_index]

    @contextmanager
    def stage(self, name: StageName, round_index: int, key: str, held: bool) -> Generator[None]:
        """Tell the terminal that a stage begins."""
        where = f"round {round_index}" if round_index else "start"
        verb = "[dim]reused" if held else "[bold]running"
        self.say(f"{verb}[/] {where:>8}  {name}  [dim]{key[:12]}[/]")
        yield

    def say(self, text: str) -> None:
        """A line on the terminal, in Rich's markup."""
        self._console.print(text, highlight=False)

    def note(self, record: StageRecord, round_index: int, *, reused: bool) -> None:
        """Take a finished stage into the summary and, once, into MLflow."""
        folder = open_store(str(self.home.store)).fetch(record.artifact) / PICTURES_FOLDER
        pictures = tuple(str(p) for p in sorted(folder.glob("*.png")))
        step = StageStep(round=round_index, record=record, reused=reused, pictures=pictures)
        self.update(steps=(*self.summary.steps, step))
        uri, parent, child = self.home.mlflow_uri, self.summary.mlflow_run_id, self.round_run(round_index)
        stage, key = record.stage, record.key
        tracking.log_stage_summary(uri, child, stage, key, record.metrics, record.seconds)
        # On the parent run a point a round, so that its charts show the campaign's course.
        tracking.log_stage_summary(uri, parent, stage, key, record.metrics, record.seconds, round_index)
        if stage in _CHECKPOINTS:
            name = f"{_CHECKPOINTS[stage]}-round-{round_index}"
            tracking.log_checkpoint(
                uri, child, name, record.artifact.uri, record.artifact.sha256, record.metrics, step=round_index
            )
        for picture in pictures:
            with Image.open(picture) as image:
                tracking.log_gallery(uri, parent, f"{stage}/{Path(picture).stem}", image, round_index)

    def update(self, **changes: object) -> None:
        """Change the summary and write it, atomically."""
        self.summary = self.summary.model_copy(update={**changes, "updated_at": _now()})
        self.folder.mkdir(parents=True, exist_ok=True)
        partial = self.folder / f"summary.json.{os.getpid()}"
        partial.write_text(self.summary.model_dump_json(indent=1))
        partial.replace(self.folder / "summary.json")


def campaign_key(
    config: CampaignConfig, attacker: ExternalRef, defender: ExternalRef, source: ExternalRef | None
) -> str:
    """What identifies a campaign: everything in its config but where it runs, and the contents it starts from."""
    decisive = config.model_dump(mode="json", exclude={"run", "source_folder", "promotion"})
    pinned = [ref.sha256 or ref.name for ref in (attacker, defender, source) if ref is not None]
    return sha256_of({"config": decisive, "pinned": pinned})


def read_summary(folder: Path) -> CampaignSummary:
    return CampaignSummary.model_validate_json((folder / "summary.json").read_bytes())


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
