"""Identities that were released stay: a stored artifact is found again by later code."""

import json
from pathlib import Path
from typing import Annotated, Any

import pytest

from aot_core.contracts.artifact import StageIdentity
from aot_core.contracts.base import LATER, Frozen, decisive
from aot_core.contracts.loading import load_campaign
from aot_core.engine.identity import contract, contract_class
from aot_core.home import Home
from flows.campaign import OpenCampaign

RELEASED = json.loads(Path(__file__).with_name("released_identities.json").read_text())
"""Of the smoke campaign, as version 0.1.0 stored them."""
BUMPED = {
    "prepare_data": (5, "no false questions about headings, federated annotations and crowds; SSIM in float64"),
    "attacker_round": (
        6,
        "one answer parser: an article is no option, a thought no answer; SSIM in float64; the probe "
        "meets each scene once",
    ),
    "curate": (5, "the answer parser and SSIM, as attacker_round"),
    "defender_round": (3, "the answer parser, as attacker_round"),
    "evaluate": (7, "the answer parser and SSIM, as attacker_round; items say which completions were cut off"),
}
"""The stages whose `VERSION` has risen since then, and why: what was stored of them is made anew."""
SMOKE = Path(__file__).parents[2] / "configs" / "smoke.toml"


class Inner(Frozen):
    old: int = 1
    new: Annotated[int, LATER] = 5


class Outer(Frozen):
    name: str = "a"
    inner: Inner = Inner()
    many: tuple[Inner, ...] = ()
    added: Annotated[Inner | None, LATER] = None


def test_a_later_field_is_left_out_while_it_is_at_its_default() -> None:
    assert decisive(Outer()) == {"name": "a", "inner": {"old": 1}, "many": []}
    assert decisive(Outer(many=(Inner(), Inner(new=6)))) == {
        "name": "a", "inner": {"old": 1}, "many": [{"old": 1}, {"old": 1, "new": 6}]
    }  # fmt: skip
    assert decisive(Outer(added=Inner(new=7)))["added"] == {"old": 1, "new": 7}


@pytest.mark.parametrize("released", RELEASED["stages"], ids=lambda one: f"{one['identity']['stage']}-{one['key'][:6]}")
def test_a_released_stage_keeps_its_key(released: dict[str, Any]) -> None:
    """Fails where a field was added without `LATER`, or a default was changed."""
    stage, identity = released["identity"]["stage"], released["identity"]
    config = contract_class(stage, "Config").model_validate(identity["config"])
    now = StageIdentity(stage=stage, version=identity["version"], config=decisive(config), inputs=identity["inputs"])
    assert now.key == released["key"]
    required = {
        name for name, field in contract_class(stage, "Inputs").model_fields.items() if LATER not in field.metadata
    }
    assert set(identity["inputs"]) == required


@pytest.mark.parametrize("released", RELEASED["stages"], ids=lambda one: f"{one['identity']['stage']}-{one['key'][:6]}")
def test_a_version_rises_for_a_reason(released: dict[str, Any]) -> None:
    """Whoever bumps a `VERSION` orphans what is stored: the reason stands in `BUMPED`."""
    stage, version = released["identity"]["stage"], released["identity"]["version"]
    assert BUMPED.get(stage, (version, ""))[0] == contract(stage).VERSION


def test_a_released_campaign_keeps_its_key(tmp_path: Path) -> None:
    """By which a killed campaign finds its MLflow run and its folder again."""
    assert OpenCampaign(load_campaign(SMOKE), Home(tmp_path)).key == RELEASED["campaign"]
