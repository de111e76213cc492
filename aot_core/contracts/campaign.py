"""A whole campaign's config: one section a stage, named like the stage, and where it all runs."""

from typing import Annotated, Literal, TypeVar

from pydantic import Field, field_validator, model_validator

from aot_core.contracts.artifact import StageName
from aot_core.contracts.attacker_round import AttackerRoundConfig
from aot_core.contracts.bank import BankConfig
from aot_core.contracts.base import LATER, Frozen
from aot_core.contracts.compare_data import CompareDataConfig
from aot_core.contracts.curate import CurateConfig
from aot_core.contracts.defender_round import DefenderRoundConfig
from aot_core.contracts.evaluate import EvaluateConfig
from aot_core.contracts.launch import DockerSettings, KubernetesSettings
from aot_core.contracts.prepare_data import PrepareDataConfig
from aot_core.contracts.promotion import PromotionSettings
from aot_core.contracts.restart import Restart
from aot_core.contracts.series import EditionPlan, SeriesSettings
from aot_core.contracts.store import S3Settings
from aot_core.contracts.texts import Line, ModelName, Name, PathText, Prompt, StoreUri
from aot_core.contracts.warm_start_attacker import WarmStartAttackerConfig
from aot_core.contracts.warm_start_defender import WarmStartDefenderConfig

TagName = Annotated[str, Field(min_length=1, max_length=250, pattern=r"^[A-Za-z0-9_./ -]+$")]
"""What MLflow takes as a tag's name."""
SeededConfig = TypeVar("SeededConfig", bound=Frozen)


class BaseModels(Frozen):
    """The pair that starts the campaign: each a shipped model's name, a folder, or a hub name."""

    attacker: ModelName = "aot-tiny-edit"
    """A diffusers image-editing pipeline."""
    defender: ModelName = "aot-tiny-vl"
    """A transformers image-text-to-text model."""


class RunSettings(Frozen):
    """Where and how the stages run. Nothing in this section changes a result, so none of it is in a key."""

    launcher: Literal["inprocess", "subprocess", "docker", "kubernetes"] = "inprocess"
    """How a stage gets its process."""
    docker: DockerSettings = DockerSettings()
    kubernetes: KubernetesSettings = KubernetesSettings()
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """"auto" uses a GPU if there is one."""
    threads: int = Field(default=2, ge=1, le=1024)
    """CPU threads per stage."""
    retries: int = Field(default=1, ge=0, le=100)
    """How often a crashed stage is retried. Bad input and running out of memory are not retried."""
    stage_hours: float | None = Field(default=None, gt=0, le=8784)
    """Time-out of a stage in hours, if it has a process of its own. None: no limit."""
    gpu_slots: Annotated[tuple[Name, ...], Field(max_length=1024)] = ()
    """Prefect's global concurrency limits (`aot setup` creates `aot-gpu-0`, `aot-gpu-1`, ...). A stage occupies one of
    them while it runs, and uses the GPU whose number ends the name. Empty: no queue."""
    accelerate: PathText | None = None
    """Config file of `accelerate` for Defender stages with several processes: FSDP or DeepSpeed, which shard the
    weights. None: every process holds all weights (DDP)."""
    store: StoreUri | None = None
    """The artifact store: a folder or `s3://BUCKET/PREFIX`; None: `store/` in the home."""
    s3: S3Settings = S3Settings()
    """How an S3 store is reached."""
    owner: Annotated[Line, LATER] = ""
    """Who is responsible for the campaign; shown wherever the campaign is. Empty: user@machine, or AOT_ACTOR of a
    service."""
    note: Annotated[Prompt, LATER] = ""
    """The campaign's purpose: its description in MLflow."""
    tags: Annotated[dict[TagName, Line], Field(max_length=100), LATER] = Field(default_factory=dict)
    """Tags of its MLflow run and of the version that it registers."""

    @field_validator("tags")
    @classmethod
    def _taken(cls, tags: dict[str, str]) -> dict[str, str]:
        if taken := [name for name in tags if name.startswith(("aot.", "mlflow."))]:
            raise ValueError(f"{', '.join(taken)}: names that begin with aot. and mlflow. are taken; choose another")
        return tags


class CampaignConfig(Frozen):
    """One co-evolution from data to registered Defender."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")
    """The campaign's name in MLflow and in paths."""
    seed: int = Field(default=0, ge=0, le=4_294_966)
    """The campaign's seed; each stage's seed is derived from it."""
    rounds: int = Field(default=3, ge=0, le=999)
    """N: the number of rounds."""
    adversaries: Annotated[
        tuple[Annotated[str, Field(pattern=r"^aot://attacker_round/[0-9a-f]{64}$")], ...], Field(max_length=10_000)
    ] = ()
    """Attackers of other campaigns in the same store (`aot pool` lists them). Every evaluation, and therefore the
    gate's worst case, includes them. `curate.draw` may use them, and `attacker_start` may start from one."""
    attacker_start: Literal["own", "newest"] = "own"
    """Where round 1's Attacker starts: from its own warm start, or from the newest of `adversaries`."""
    attacker_rounds: Annotated[Literal["continue", "fresh"], LATER] = "continue"
    """Where the Attacker of every later round starts: from the previous round's Attacker ("continue"), or from the same
    point as round 1 ("fresh"), as AlphaStar's exploiters are reset. With "fresh", let curation use the Attackers of all
    rounds (`curate.draw`)."""
    crossplay: bool | Literal["pool"] = False
    """Whether each new Attacker is also evaluated against the Defender that it was trained against (Attacker k against
    Defender k - 1), which measures the attack before the Defender learns from it. "pool" does so and finally fills in
    the rest of the matrix: every Attacker of the pool against every Defender."""
    stop_after: Literal["prepare_data"] | None = None
    """End the campaign early: `prepare_data` builds a data set and nothing else."""
    source_folder: PathText | None = None
    """The folder of a `coco` data source. Its contents, not its path, identify the campaign."""
    benchmark_folder: PathText | None = None
    """The folder that holds the files of `[evaluate.benchmarks]`. Its contents, not its path, identify the campaign."""
    series: Annotated[SeriesSettings | None, LATER] = None
    """How campaigns of this config recur. None: a single campaign."""
    edition: Annotated[EditionPlan | None, LATER] = None
    """Which edition of its series this is. Filled in by `aot run --edition` and by schedules, never by hand."""
    restart: Annotated[Restart | None, LATER] = None
    """The stage from which the campaign is recomputed. Filled in by `aot run --from`, never by hand."""
    models: BaseModels = BaseModels()
    run: RunSettings = RunSettings()
    promotion: PromotionSettings = PromotionSettings()

    prepare_data: PrepareDataConfig = PrepareDataConfig()
    warm_start_attacker: WarmStartAttackerConfig = WarmStartAttackerConfig()
    warm_start_defender: WarmStartDefenderConfig = WarmStartDefenderConfig()
    attacker_round: AttackerRoundConfig = AttackerRoundConfig()
    curate: CurateConfig = CurateConfig()
    bank: Annotated[BankConfig, LATER] = BankConfig()
    compare_data: Annotated[CompareDataConfig, LATER] = CompareDataConfig()
    defender_round: DefenderRoundConfig = DefenderRoundConfig()
    evaluate: EvaluateConfig = EvaluateConfig()

    @model_validator(mode="after")
    def _waiting_holds_no_gpu(self) -> "CampaignConfig":
        in_process = self.run.launcher == "inprocess" and self.run.device != "cpu"
        if self.promotion.approval == "human" and in_process:
            raise ValueError(
                'promotion.approval = "human" waits for hours, and a campaign with run.launcher = "inprocess" would '
                'hold its device meanwhile; set run.launcher = "subprocess", or run.device = "cpu"'
            )
        return self

    @model_validator(mode="after")
    def _each_defender_answers_for_itself(self) -> "CampaignConfig":
        if self.evaluate.benchmarks.endpoint is not None:
            raise ValueError(
                "evaluate.benchmarks.endpoint would give challenger and champion the answers of one and the same "
                "model; set evaluate.benchmarks.vllm, which serves each in turn, or use `aot bench run --endpoint`"
            )
        return self

    @model_validator(mode="after")
    def _a_parser_reads_the_procedural_world(self) -> "CampaignConfig":
        named = [f"{section}.validity.judge" for section in self._judges]
        if named and self.prepare_data.source.type == "procedural":
            raise ValueError(
                f"{', '.join(named)}: procedural scenes are read by a parser, which needs no judge; leave it out, or "
                "give a source of photographs"
            )
        return self

    @model_validator(mode="after")
    def _somebody_to_start_from(self) -> "CampaignConfig":
        if self.attacker_start == "newest" and not self.adversaries:
            raise ValueError(
                'attacker_start = "newest" starts from an Attacker of `adversaries`, and there are none; name some '
                '(`aot pool` lists them), or set attacker_start = "own"'
            )
        return self

    @model_validator(mode="after")
    def _a_merged_adapter_is_a_full_model(self) -> "CampaignConfig":
        if self.series is not None and self.series.adapters == "merge" and self.defender_round.model.lora is not None:
            raise ValueError(
                'series.adapters = "merge" puts the adapter that an edition begins with into the weights, and '
                "defender_round.model.lora would begin another; leave model.lora out, or set "
                'series.adapters = "continue"'
            )
        return self

    @model_validator(mode="after")
    def _photographs_keep_their_split(self) -> "CampaignConfig":
        data = self.prepare_data
        if self.series is None or self.series.data == "same" or data.source.type == "procedural" or data.growing:
            return self
        raise ValueError(
            'series.data = "redraw" would draw the splits of the same photographs anew in every edition, so that what '
            "an earlier edition was taught could be asked in a later one's exam; set prepare_data.growing = true (a "
            'photograph then stays in its split for good), or series.data = "same"'
        )

    @model_validator(mode="after")
    def _slots_are_single_gpus(self) -> "CampaignConfig":
        for section in ("warm_start_defender", "defender_round"):
            if getattr(self, section).processes > 1 and self.run.gpu_slots:
                raise ValueError(
                    f"{section}.processes needs several GPUs, but a slot of run.gpu_slots is one GPU; leave gpu_slots "
                    "out, or set processes to 1"
                )
        return self

    @property
    def _judges(self) -> dict[str, str]:
        by_section = {
            "attacker_round.reward": self.attacker_round.reward.validity.judge,
            "curate": self.curate.validity.judge,
            "evaluate": self.evaluate.validity.judge,
        }
        return {section: judge for section, judge in by_section.items() if judge}

    @property
    def models_by_field(self) -> dict[str, str]:
        """Every model that the campaign loads by name, each a shipped model's, a folder or a hub name."""
        extension = self.prepare_data.extension
        named = {
            "models.attacker": self.models.attacker,
            "models.defender": self.models.defender,
            "prepare_data.extension.editor": extension.editor,
            "prepare_data.extension.checker": extension.checker,
            **{f"{section}.validity.judge": judge for section, judge in self._judges.items()},
        }
        return {field: name for field, name in named.items() if name}

    @property
    def named_models(self) -> tuple[str, ...]:
        """The same without the fields' names."""
        return tuple(self.models_by_field.values())

    def seeded(self, section: SeededConfig, round_index: int = 0, *, of_series: bool = False) -> SeededConfig:
        """A stage's config with its seed for a round: another round, other noise; another campaign seed, all other.

        Args:
            of_series: with the config's own seed, which all editions share, instead of the edition's.
        """
        seed = self.seed if self.edition is None or of_series else self.edition.seed
        return section.model_copy(update={"seed": seed * 1000 + round_index})

    def stage_config(self, name: StageName, round_index: int = 0, *, of_series: bool = False) -> Frozen:
        """A stage's section with its seed, and with what the series decides of it."""
        declared: Frozen = getattr(self, name)
        same_draw = self.series is not None and self.series.data == "same" and name == "prepare_data"
        section = self.seeded(declared, round_index, of_series=of_series or same_draw)
        if (
            name in ("warm_start_defender", "defender_round")
            and self.edition is not None
            and self.series is not None
            and self.series.bank
        ):
            # What the regression suite holds back may never be taught.
            section = section.model_copy(update={"held_back": self.bank.suite})
        return section
