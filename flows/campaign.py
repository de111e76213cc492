"""An open campaign: where its stages run, its MLflow runs, and the summary that grows with every stage.

Everything lies under one home: `store/`, `mlflow/`, `prefect/`, `campaigns/NAME-KEY/summary.json`, `locks/`.
"""

import logging
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from filelock import FileLock, Timeout
from PIL import Image
from prefect.exceptions import TerminationSignal
from prefect.runtime import flow_run
from rich.console import Console
from rich.markup import escape
from rich.text import Text

from aot_core.commands.errors import sentence
from aot_core.commands.handover import write_private
from aot_core.commands.progress import Durations, clock, outcome, planned_stages, slots, time_left
from aot_core.commands.status import read_summaries
from aot_core.contracts.artifact import ExternalRef, StageName, StageRecord
from aot_core.contracts.attack import ValiditySettings
from aot_core.contracts.base import decisive, sha256_of
from aot_core.contracts.campaign import CampaignConfig
from aot_core.contracts.errors import StageCancelledError, ToldError
from aot_core.contracts.loading import ConfigError
from aot_core.contracts.paths import local_path
from aot_core.contracts.prepare_data import PrepareDataInputs
from aot_core.contracts.spec import Place, TrackingTarget
from aot_core.contracts.summary import PICTURES_FOLDER, CampaignSummary, StageStep
from aot_core.engine.identity import declaration, pin_model, pin_source
from aot_core.engine.runner import git_commit
from aot_core.home import Home
from aot_core.promotion.transaction import whoami
from aot_core.store import Store, open_store
from aot_core.tracking import mlflow_tracking as tracking
from aot_core.tracking.database import told
from aot_core.tracking.headlines import headlines
from aot_core.tracking.protocol import TrackingError
from aot_core.tracking.registry import OWNER_TAG
from aot_core.tracking.story import origin_tags

_log = logging.getLogger("aot.campaign")
"""What Prefect takes into a flow run's logs (`PREFECT_LOGGING_EXTRA_LOGGERS`), and nobody prints a second time."""
_log.setLevel(logging.INFO)
_log.propagate = False

_NO_PART_OF_THE_KEY = {"run", "source_folder", "benchmark_folder", "promotion"}
_OF_THE_START = ("prepare_data", "warm_start_attacker", "warm_start_defender", "evaluate")
_OF_A_ROUND = ("attacker_round", "curate", "defender_round", "evaluate")
"""The sections of the config that a round's run shows as its parameters."""
_LINK_SECONDS = 7 * 24 * 3600
"""The longest that a presigned link may live."""


class CampaignBusyError(ToldError, RuntimeError):
    """Another process is running this very campaign."""


class OpenCampaign:
    """A campaign while it runs. A context manager: leaving it closes the MLflow runs and frees the lock."""

    def __init__(self, config: CampaignConfig, home: Home) -> None:
        self.config, self.home = config, home
        self.attacker_base: ExternalRef = pin_model(config.models.attacker, "models.attacker")
        self.defender_base: ExternalRef = pin_model(config.models.defender, "models.defender")
        self.store_uri = config.run.store or str(home.store)
        self.store: Store = open_store(self.store_uri, config.run.s3)
        self.source: ExternalRef | None = pin_source(config.source_folder)
        self.benchmarks: ExternalRef | None = pin_source(config.benchmark_folder, "benchmark_folder")
        self.key = campaign_key(config, self.attacker_base, self.defender_base, self.source, self.benchmarks)
        self.accelerate = _read("run.accelerate", config.run.accelerate)
        self._console = Console(stderr=True)
        self._rounds: dict[int, str] = {}
        self._planned = slots(planned_stages(config))
        self._durations = Durations(read_summaries(home)[0], config.name)
        self._origin = origin_tags("aot run", git_commit())
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
        try:
            self._open()
        except BaseException:
            self._lock.release()  # `__exit__` is not called for what fails here
            raise
        return self

    def _open(self) -> None:
        """Open the MLflow run and begin the summary anew."""
        run_id = tracking.open_campaign_run(
            self.home.mlflow_uri,
            experiment="aot",
            campaign_key=self.key,
            name=self.config.name,
            params=self._params(),
            tags={"aot.home": str(self.home.root), **self._origin, **self.labels()},
            note=self.config.run.note,
        )
        now = _now()
        self.summary = CampaignSummary(
            name=self.config.name,
            key=self.key,
            config=self.config.model_dump(mode="json"),
            labels=self.labels(),
            note=self.config.run.note,
            started_at=now,
            updated_at=now,
            mlflow_uri=self.home.mlflow_uri,
            mlflow_run_id=run_id,
        )
        self.update()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        killed = isinstance(error, KeyboardInterrupt | SystemExit | StageCancelledError | TerminationSignal)
        status = "FINISHED" if kind is None else "KILLED" if killed else "FAILED"
        try:
            with told():
                self.update(status="finished" if kind is None else "failed", message=_why(error))
                for run_id in [*self._rounds.values(), self.summary.mlflow_run_id]:
                    tracking.close_run(self.home.mlflow_uri, run_id, status)
        except (OSError, TrackingError):
            if error is None:
                raise  # else what stopped the campaign is the news: a full disk stops this too
        finally:
            self._lock.release()

    def _params(self) -> dict[str, object]:
        """What the config sets itself, not where it runs: rounds have their stages' whole sections, `summary.json` has
        everything."""
        told = self.config.model_dump(mode="json", exclude_defaults=True, exclude={"run", "promotion", "edition"})
        return {**told, "seed": self.config.seed, "rounds": self.config.rounds}

    def labels(self) -> dict[str, str]:
        """Who answers for the campaign, and its tags: of its MLflow run, and of the version that it registers."""
        run, restart = self.config.run, self.config.restart
        told = {**run.tags, OWNER_TAG: run.owner or whoami()}
        if restart is not None:
            told["aot.restart"] = f"{restart.stage}:{restart.round} {restart.asked_at}"
        return told

    def adversaries(self) -> list[StageRecord]:
        """The records of the other campaigns' Attackers that the config names.

        Raises ConfigError for one that is not there, or that was trained from another base.
        """
        return self.attackers_at("adversaries", self.config.adversaries)

    def attackers_at(self, field: str, uris: Iterable[str]) -> list[StageRecord]:
        """The records of Attackers in the store. Raises ConfigError, naming the field, as `adversaries` does."""
        found: list[StageRecord] = []
        mine = self.attacker_base.sha256 or self.attacker_base.name
        for uri in uris:
            record = self.store.find("attacker_round", uri.rpartition("/")[2])
            if record is None:
                raise ConfigError(f"{field}: {uri} is not in this store; `aot pool` lists the Attackers that are")
            base = record.identity.inputs["attacker_base"]
            if base != mine:
                raise ConfigError(
                    f"{field}: {uri} was trained from another base ({base[:12]}) than models.attacker "
                    f"({mine[:12]}); leave it out"
                )
            found.append(record)
        return found

    def place(self, round_index: int, *, tracked: bool = True) -> Place:
        """Where a stage of a round runs, and what it logs to if it is tracked."""
        return self._place(self.round_run(round_index) if tracked else None)

    def any_place(self) -> Place:
        """The same before there is a run to log to: what a launcher is asked whether it can serve."""
        return self._place("")

    def _place(self, run_id: str | None) -> Place:
        settings = self.config.run
        return Place(
            store=self.store_uri,
            s3=settings.s3,
            device=settings.device,
            threads=settings.threads,
            accelerate=self.accelerate,
            tracking=None if run_id is None else TrackingTarget(uri=self.home.mlflow_uri, run_id=run_id),
            campaign=self.key,
            home=str(self.home.root),
        )

    def data_inputs(self) -> PrepareDataInputs:
        """What `prepare_data` reads from outside the store."""
        settings = self.config.prepare_data
        extension = settings.extension
        plan = self.config.edition
        return PrepareDataInputs(
            source=self.source,
            previous=plan.previous if plan is not None and settings.growing else None,
            defender=self.defender_base if settings.effectiveness.enabled else None,
            editor=pin_model(extension.editor, "prepare_data.extension.editor") if extension.editor else None,
            checker=pin_model(extension.checker, "prepare_data.extension.checker") if extension.checker else None,
        )

    def judge(self, settings: ValiditySettings) -> ExternalRef | None:
        """The model that is asked about edited photographs, pinned; None where the settings name none."""
        return pin_model(settings.judge, "validity.judge") if settings.judge else None

    def round_run(self, round_index: int) -> str:
        """The MLflow run of a round, opened when it is first asked for."""
        if round_index not in self._rounds:
            told = self.config.model_dump(mode="json")
            params = {name: told[name] for name in (_OF_A_ROUND if round_index else _OF_THE_START)}
            self._rounds[round_index] = tracking.open_round_run(
                self.home.mlflow_uri, "aot", self.summary.mlflow_run_id, round_index, params, self._origin
            )
        return self._rounds[round_index]

    @contextmanager
    def stage(
        self, name: StageName, round_index: int, key: str, held: bool, *, numbered: bool = True
    ) -> Generator[None]:
        """Tell the terminal that a stage begins: its number, if the plan has it, and the time."""
        where = f"round {round_index}" if round_index else "start"
        verb = "[dim]reused" if held else "[bold]running"
        total = len(self._planned)
        count = f"{len(self.summary.steps) + 1:>2} of {total}" if numbered else " " * len(f"   of {total}")
        self.say(f"{clock()}  {count}  {verb}[/] {where:>8}  {name}  [dim]{key[:12]}[/]")
        yield

    def _tell_outcome(self, record: StageRecord, round_index: int) -> None:
        """What a stage gave, and how long the others will take if they take as long as last time."""
        self._durations.took(record.stage, record.seconds)
        parts = [f"{record.seconds:.1f} s", outcome(record)]
        parts.append(time_left(self._planned[len(self.summary.steps) :], self._durations))
        number = f" {round_index}" if round_index else ""
        self.say(f"[dim]          {record.stage}{number}: {', '.join(part for part in parts if part)}[/]")

    def say(self, text: str) -> None:
        """A line on the terminal, in Rich's markup, and in the flow run's logs."""
        self._console.print(text, highlight=False)
        if flow_run.get_id():
            _log.info("%s", Text.from_markup(text).plain.strip())

    def warn(self, text: str) -> None:
        """A warning on the terminal that the report repeats."""
        self.say(f"[yellow]{escape(text)}[/]")
        self.update(warnings=(*self.summary.warnings, text))

    def note(self, record: StageRecord, round_index: int, *, reused: bool, label: str = "") -> None:
        """Take a finished stage into the summary and, once, into MLflow, by the stage's name or the label."""
        folder = self.store.fetch(record.artifact)
        pictures = tuple(str(p) for p in sorted((folder / PICTURES_FOLDER).glob("*.png")))
        step = StageStep(
            round=round_index, record=record, reused=reused, pictures=pictures, links=self._links(record, folder)
        )
        self.update(steps=(*self.summary.steps, step))
        if not reused:
            self._tell_outcome(record, round_index)
        uri, parent, child = self.home.mlflow_uri, self.summary.mlflow_run_id, self.round_run(round_index)
        stage, key = label or record.stage, record.key
        figures = headlines(record, round_index, label)
        tracking.log_stage_summary(uri, child, stage, key, record.metrics, record.seconds, headlines=figures)
        # On the parent run a point a round, so that its charts show the campaign's course.
        tracking.log_stage_summary(uri, parent, stage, key, record.metrics, record.seconds, round_index, figures)
        declared = declaration(record.stage)
        if whose := declared.checkpoint:
            name = f"{whose}-round-{round_index}"
            tracking.log_checkpoint(uri, child, name, record.artifact, figures, step=round_index)
        if declared.data_set:
            made_of = {name: value for name, value in record.identity.inputs.items() if value}
            for run_id in (parent, child):
                tracking.log_dataset(
                    uri,
                    run_id,
                    f"{stage}-{round_index}",
                    record.artifact,
                    made_of,
                    record.metrics,
                )
        if stage == "prepare_data":
            tracking.link_data_docs(uri, parent, child, folder / "guard" / "report.html")
        for picture in pictures:
            with Image.open(picture) as image:
                tracking.log_gallery(uri, parent, f"pictures/{stage}-{Path(picture).stem}", image, round_index)

    def _links(self, record: StageRecord, folder: Path) -> dict[str, str]:
        """Presigned links to an artifact's own files (not to its folders' hundreds), where it lies in a bucket."""
        if not self.store_uri.startswith("s3://"):
            return {}
        names = sorted(path.name for path in folder.iterdir() if path.is_file())
        return {name: self.store.link(record.artifact, name, _LINK_SECONDS) for name in names}

    def update(self, **changes: object) -> None:
        """Change the summary and write it, atomically."""
        self.summary = self.summary.model_copy(update={**changes, "updated_at": _now()})
        self.folder.mkdir(parents=True, exist_ok=True)
        write_private(self.folder / "summary.json", self.summary.model_dump_json(indent=1))


def campaign_key(config: CampaignConfig, *contents: ExternalRef | None) -> str:
    """What identifies a campaign: everything in its config but where it runs, and the contents it starts from."""
    told = {name: value for name, value in decisive(config).items() if name not in _NO_PART_OF_THE_KEY}
    pinned = [ref.sha256 or ref.name for ref in contents if ref is not None]
    return sha256_of({"config": told, "pinned": pinned})


def _read(field: str, path: str | None) -> str:
    """A file's text, "" where none is named. Raises ConfigError for one that cannot be read."""
    try:
        return local_path(path).read_text(encoding="utf-8") if path else ""
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{field}: {path!r} cannot be read ({error}); name a text file that is there") from error


def _why(error: BaseException | None) -> str:
    """What the summary says of the error that ended a campaign; "" where it came to its end."""
    if error is None:
        return ""
    if isinstance(error, KeyboardInterrupt | SystemExit | TerminationSignal):
        return "interrupted; the same command continues the campaign"
    return sentence(error)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
