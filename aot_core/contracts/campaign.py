"""A whole campaign's config: one section a stage, named like the stage, and where it all runs."""

from typing import Literal, TypeVar

from pydantic import Field

from aot_core.contracts.attacker_round import AttackerRoundConfig
from aot_core.contracts.base import Frozen
from aot_core.contracts.curate import CurateConfig
from aot_core.contracts.defender_round import DefenderRoundConfig
from aot_core.contracts.evaluate import EvaluateConfig
from aot_core.contracts.prepare_data import PrepareDataConfig
from aot_core.contracts.warm_start_attacker import WarmStartAttackerConfig
from aot_core.contracts.warm_start_defender import WarmStartDefenderConfig

SeededConfig = TypeVar("SeededConfig", bound=Frozen)


class BaseModels(Frozen):
    """The pair that starts the campaign: each a shipped model's name, a folder, or a hub name."""

    attacker: str = "aot-tiny-edit"
    """A diffusers image-editing pipeline."""
    defender: str = "aot-tiny-vl"
    """A transformers image-text-to-text model."""


class RunSettings(Frozen):
    """Where and how the stages run. Nothing in this section changes a result, so none of it is in a key."""

    launcher: Literal["inprocess", "subprocess"] = "inprocess"
    """How a stage gets its process."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """"auto" takes the GPU where there is one."""
    threads: int = Field(default=2, ge=1)
    """CPU threads of a stage."""
    retries: int = Field(default=1, ge=0)
    """How often a stage that crashed is started again; bad input and a full memory are not tried again."""


class PromotionSettings(Frozen):
    """When a campaign's last Defender takes the `champion` alias."""

    model: str = "aot-defender"
    """The registered model's name in MLflow."""
    clean_margin: float = Field(default=0.02, ge=0, le=1)
    """How much clean accuracy (a share) the challenger may lose against the champion."""


class CampaignConfig(Frozen):
    """One co-evolution from data to registered Defender."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")
    """The campaign's name in MLflow and in paths."""
    seed: int = Field(default=0, ge=0)
    """The seed that every stage's own is derived from."""
    rounds: int = Field(default=3, ge=0)
    """N: how often Attacker and Defender take turns."""
    stop_after: Literal["prepare_data"] | None = None
    """End the campaign early: `prepare_data` makes a data set and nothing else."""
    source_folder: str | None = None
    """The folder of a `coco` data source. Its contents, not its path, identify the campaign."""
    models: BaseModels = BaseModels()
    run: RunSettings = RunSettings()
    promotion: PromotionSettings = PromotionSettings()

    prepare_data: PrepareDataConfig = PrepareDataConfig()
    warm_start_attacker: WarmStartAttackerConfig = WarmStartAttackerConfig()
    warm_start_defender: WarmStartDefenderConfig = WarmStartDefenderConfig()
    attacker_round: AttackerRoundConfig = AttackerRoundConfig()
    curate: CurateConfig = CurateConfig()
    defender_round: DefenderRoundConfig = DefenderRoundConfig()
    evaluate: EvaluateConfig = EvaluateConfig()

    def seeded(self, section: SeededConfig, round_index: int = 0) -> SeededConfig:
        """A stage's config with its seed for a round: another round, other noise; another campaign seed, all other."""
        return section.model_copy(update={"seed": self.seed * 1000 + round_index})
