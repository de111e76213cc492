"""The reward's terms of one's own, from a config's TOML to what an edit earns."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from aot_core.attacker.editing import Attacker
from aot_core.attacker.reward import Reward
from aot_core.attacker.reward_terms import build_terms, with_terms
from aot_core.attacker.round_state import ScoredEdit
from aot_core.attacker.scenes import Target, draw
from aot_core.attacker.self_play import play_round
from aot_core.attacker.tactics import AttackPolicy
from aot_core.base_models.names import SHIPPED
from aot_core.contracts.attack import AttackTerm, RewardSettings
from aot_core.contracts.base import decisive
from aot_core.contracts.loading import load_campaign
from aot_core.contracts.scene import Sample
from aot_core.rl.reward_terms import RewardError
from aot_core.stages.helpers.opponent import EndpointDefender
from aot_core.tracking.protocol import NullTracker
from tests.attacker.test_scoring import CONFIG, by_picture, settings
from tests.evaluation.engines.conftest import Server, serving

TINY = Path(__file__).parents[2] / "configs" / "tiny.toml"
OWN = """
def half(edits):
    return [0.5 for _ in edits]

def large(edits):
    return [4.0 for _ in edits]

def ssim(edits):
    return [edit.reward.ssim for edit in edits]
"""


@pytest.fixture(autouse=True)
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_terms.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as state:
        state.says = by_picture
        yield state


@pytest.fixture
def edits(red_ring_sample: tuple[Sample, Image.Image]) -> list[ScoredEdit]:
    """A valid edit that earned 0.8, and one that is not valid."""
    target = Target(*red_ring_sample)
    (attempt,) = draw(np.random.default_rng(0), [target], CONFIG.proposals, AttackPolicy(), 1)
    earned = Reward(0.8, True, 0.99, 0.9, 1.0, 1.0, 0.7, ("A",))
    nothing = Reward(0.0, False, 0.5, 0.1, 0.0, 0.0, 0.0, ())
    return [ScoredEdit(target, attempt.proposal, target.image, reward) for reward in (earned, nothing)]


def terms(*named: AttackTerm) -> RewardSettings:
    return RewardSettings(terms=named)


def test_a_term_multiplies_or_adds_and_invalid_edits_stay_at_nothing(edits: list[ScoredEdit]) -> None:
    assert with_terms(RewardSettings(), edits) == edits
    factor = AttackTerm(name="my_terms:half", weight=0.4)
    addend = AttackTerm(name="my_terms:large", weight=-0.1, combine="add")
    valid, invalid = with_terms(terms(factor, addend), edits)
    # 0.8 (1 - 0.4 + 0.4 * 0.5) - 0.1 * 4, in this order.
    assert valid.reward.reward == pytest.approx(0.8 * 0.8 - 0.4)
    assert valid.reward.terms == {"my_terms:half": 0.5, "my_terms:large": 4.0}
    assert invalid == edits[1]
    valid, _ = with_terms(terms(addend, factor), edits)
    assert valid.reward.reward == pytest.approx((0.8 - 0.4) * 0.8)


def test_what_a_term_may_not_do_is_named(edits: list[ScoredEdit]) -> None:
    with pytest.raises(RewardError, match=r"'my_terms:large' is 4 for the edit of scene .* lies within 0\.\.1"):
        with_terms(terms(AttackTerm(name="my_terms:large", weight=1.0)), edits)
    with pytest.raises(ValueError, match=r"attacker_round\.reward\.terms: 'my_terms:haf' cannot be imported"):
        build_terms(terms(AttackTerm(name="my_terms:haf", weight=1.0)))
    with pytest.raises(ValueError, match=r"weight is 1\.5; a factor takes 0\.\.1"):
        AttackTerm(name="my_terms:half", weight=1.5)
    with pytest.raises(ValueError, match="names a function twice"):
        terms(AttackTerm(name="my_terms:half", weight=0.5), AttackTerm(name="my_terms:half", weight=0.1))


def test_a_config_file_names_them_and_a_round_trains_on_them(
    server: Server, red_ring_sample: tuple[Sample, Image.Image], tmp_path: Path
) -> None:
    table = '\n[[attacker_round.reward.terms]]\nname = "my_terms:ssim"\nweight = 0.25\ncombine = "add"\n'
    (tmp_path / "own.toml").write_text(TINY.read_text() + table)
    named = load_campaign(tmp_path / "own.toml").attacker_round.reward
    plain = load_campaign(TINY).attacker_round.reward
    assert decisive(named)["terms"] and {"terms", "term_seconds"}.isdisjoint(decisive(plain))

    targets = [
        Target(red_ring_sample[0].model_copy(update={"sample_id": f"s{number}"}), red_ring_sample[1])
        for number in range(3)
    ]
    curves = []
    for place, chosen in (("plain", ()), ("own", named.terms)):
        config = CONFIG.model_copy(update={"reward": CONFIG.reward.model_copy(update={"terms": chosen})})
        config = config.model_copy(update={"opponent": settings(server), "updates": 1})
        editor = Attacker.load_trainable(str(SHIPPED / "aot-tiny-edit"), None, config.model)
        defender = EndpointDefender(settings(server), tmp_path / place)
        progress = tmp_path / place / "progress"
        history = play_round(editor, AttackPolicy(), defender, targets, config, NullTracker(), progress)
        # A round that was killed finds its edits' terms again.
        again = play_round(editor, AttackPolicy(), defender, targets, config, NullTracker(), progress)
        assert [edit.reward for edit in again.best] == [edit.reward for edit in history.best] and history.best
        curves.append(history.curve[0])
    before, after = curves
    assert before["valid"] == after["valid"] > 0 and "term/my_terms:ssim" not in before
    assert after["reward"] == pytest.approx(before["reward"] + 0.25 * after["term/my_terms:ssim"] * after["valid"])
