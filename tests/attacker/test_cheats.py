"""Each way to cheat earns less than an honest edit of the same scene, by the shipped Defender's own answers."""

import numpy as np
import pytest

from aot_core.base_models.names import SHIPPED
from aot_core.contracts.attack import RewardSettings
from aot_core.defender.answering import Defender
from benchmarks.cheats import CHEATS, HONEST, Judged, judge_all, stages


@pytest.fixture(scope="module")
def judged() -> dict[str, list[Judged]]:
    return judge_all(Defender.load(str(SHIPPED / "aot-tiny-vl")), RewardSettings(), stages(24))


def test_honest_edits_are_valid_and_earn(judged: dict[str, list[Judged]]):
    assert all(one.verdict.valid for one in judged[HONEST])
    assert min(one.reward.reward for one in judged[HONEST]) > 0.09


@pytest.mark.parametrize("cheat", CHEATS)
def test_a_cheat_earns_less_than_the_honest_edit_of_its_scene(judged: dict[str, list[Judged]], cheat: str):
    honest = {one.stage.sample.sample_id: one.reward.reward for one in judged[HONEST]}
    assert len(judged[cheat]) >= 18
    for one in judged[cheat]:
        assert one.reward.reward < honest[one.stage.sample.sample_id], one.stage.sample


@pytest.mark.parametrize(
    ("cheat", "check"),
    [
        ("grey-out", "intact"),
        ("blur", "intact"),
        ("beside the box", "confined"),
        ("copy the object", "truth_kept"),
        ("write an answer", "semantic"),
        ("texture", "semantic"),
    ],
)
def test_the_check_that_is_there_for_a_cheat_is_the_one_that_stops_it(
    judged: dict[str, list[Judged]], cheat: str, check: str
):
    stopped = np.mean([check in one.stopped_by for one in judged[cheat]])
    assert stopped > 0.9


def test_there_is_something_to_stop(judged: dict[str, list[Judged]]):
    """Without the checks the cheats would pay: on average more than an honest edit does."""
    honest = np.mean([one.reward.reward for one in judged[HONEST]])
    paying = [name for name in CHEATS if np.mean([one.unchecked for one in judged[name]]) > honest]
    assert len(paying) >= 3
