"""What the flow hands the stages that check edits: the judge that their section names, pinned by its contents."""

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import pytest

from aot_core.base_models.names import SHIPPED
from aot_core.contracts.artifact import ArtifactRef, ExternalRef, StageName
from aot_core.contracts.campaign import CampaignConfig
from aot_core.contracts.loading import load_campaign
from aot_core.contracts.summary import CampaignSummary
from aot_core.engine.identity import pin_model
from flows import coevolution
from flows.campaign import OpenCampaign

PAPER = Path(__file__).parents[2] / "configs" / "paper.toml"


class Unopened(OpenCampaign):
    """A campaign that has no home: enough to decide what the stages are given."""

    def __init__(self, config: CampaignConfig) -> None:  # pyright: ignore[reportMissingSuperCall]
        self.config, self.source, self.benchmarks = config, None, None
        self.attacker_base, self.defender_base = ExternalRef(name="some/editor"), ExternalRef(name="some/defender")
        self.summary = CampaignSummary(name="c", key="k", config={}, started_at="", updated_at="")


def given_to_stages(monkeypatch: pytest.MonkeyPatch, *overrides: str) -> dict[str, Any]:
    """Stage to its last inputs, of a campaign of one round whose stages do nothing."""
    given: dict[str, Any] = {}

    def stage(name: str) -> Any:
        def run(_campaign: OpenCampaign, inputs: Any, _round: int = 0, **_how: object) -> Any:
            given[name] = inputs
            outputs = {"success_after": 0.0, "probe": 1}
            return SimpleNamespace(
                outputs=outputs, artifact=ArtifactRef(uri=f"aot://{name}/{'0' * 64}", sha256="0" * 64)
            )

        return run

    names = get_args(StageName)
    monkeypatch.setattr(coevolution, "tasks", SimpleNamespace(**{name: stage(name) for name in names}))
    monkeypatch.setattr(coevolution, "gate_defender", lambda *_: None)
    config = load_campaign(PAPER, ["rounds=1", *overrides])
    coevolution._coevolve(Unopened(config))
    return given


def test_each_stage_is_given_the_judge_of_its_own_section(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    shutil.copytree(SHIPPED / "aot-tiny-vl", tmp_path / "judge")
    named = (f"curate.validity.judge={tmp_path / 'judge'}", "evaluate.validity.judge=some/judge")
    given = given_to_stages(monkeypatch, *named)
    assert given["curate"].judge == pin_model(str(tmp_path / "judge")) and given["curate"].judge.sha256
    assert given["evaluate"].judge == ExternalRef(name="some/judge")
    assert given["attacker_round"].judge is None


def test_without_a_name_nobody_is_given_one(monkeypatch: pytest.MonkeyPatch) -> None:
    given = given_to_stages(monkeypatch)
    assert [given[name].judge for name in ("attacker_round", "curate", "evaluate")] == [None] * 3
