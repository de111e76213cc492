"""What a campaign names and is not there is told before anything runs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from aot_core.commands.places import demand_functions
from aot_core.contracts.campaign import CampaignConfig
from aot_core.contracts.loading import ConfigError

ROOT = Path(__file__).parents[2]


def named(name: str, **run: str) -> CampaignConfig:
    return CampaignConfig.model_validate(
        {"name": "c", "defender_round": {"rewards": [{"name": name, "weight": 1}]}, "run": run}
    )


def test_a_reward_that_cannot_be_imported_is_told_before_the_campaign_starts(tmp_path: Path) -> None:
    reward = 'attacker_round.reward.terms=[{name = "nowhere.here:score", weight = 0.3}]'
    command = [sys.executable, "-m", "aot_core", "run", "configs/smoke.toml", "--set", reward, "--home", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, env=dict(os.environ), capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "attacker_round.reward.terms: 'nowhere.here:score' cannot be imported" in done.stderr
    assert list(tmp_path.iterdir()) == [], "nothing was begun"


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("def score(batch):\n    return []\n", ""),
        ("def scores(batch):\n    return []\n", "'ours:score' cannot be imported"),
        ("score = 3\n", "'ours:score' is not a function"),
        (
            "raise RuntimeError('no licence')\n",
            "defender_round.rewards: 'ours:score' cannot be imported: RuntimeError: no licence",
        ),
        ("def score(batch:\n", "defender_round.rewards: 'ours:score'"),
    ],
)
def test_a_module_that_breaks_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, told: str) -> None:
    (tmp_path / "ours.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}{os.pathsep}{tmp_path}")
    if not told:
        demand_functions(named("ours:score"))
        return
    with pytest.raises(ConfigError, match=told):
        demand_functions(named("ours:score"))


def test_what_an_image_holds_is_not_asked_here() -> None:
    demand_functions(named("only_in_the_image:score", launcher="docker"))
    demand_functions(named("format"))
