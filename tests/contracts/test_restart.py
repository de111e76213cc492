import pytest

from aot_core.contracts.artifact import StageName
from aot_core.contracts.restart import Restart, parse_restart


@pytest.mark.parametrize(
    ("asked", "round_index"), [("curate", 1), ("curate:2", 2), ("evaluate", 0), ("evaluate:3", 3), ("prepare_data", 0)]
)
def test_a_stage_and_its_round(asked: str, round_index: int) -> None:
    found = parse_restart(asked, rounds=3)
    assert (found.stage, found.round) == (asked.partition(":")[0], round_index)


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ("training", "no such stage; give one of prepare_data, "),
        ("curate:two", "'two' is not a round; give STAGE or STAGE:ROUND"),
        ("curate:4", "curate runs in rounds 1 to 3 of this campaign"),
        ("curate:0", "curate runs in rounds 1 to 3"),
        ("prepare_data:1", "prepare_data runs in round 0"),
    ],
)
def test_what_a_campaign_does_not_have(asked: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        parse_restart(asked, rounds=3)


def test_a_campaign_without_rounds_trains_nobody() -> None:
    with pytest.raises(ValueError, match="curate runs in no round"):
        parse_restart("curate", rounds=0)


def test_what_follows_is_covered_and_nothing_else() -> None:
    curate = Restart(stage="curate", round=2)
    covered: list[tuple[StageName, int]] = [
        ("curate", 2), ("defender_round", 2), ("evaluate", 2), ("bank", 2), ("attacker_round", 3), ("curate", 3),
    ]  # fmt: skip
    kept: list[tuple[StageName, int]] = [
        ("prepare_data", 0),
        ("warm_start_defender", 0),
        ("attacker_round", 2),
        ("curate", 1),
        ("evaluate", 1),
    ]
    assert [one for one in covered + kept if curate.covers(*one)] == covered
    looked = Restart(stage="evaluate", round=1)
    assert looked.covers("evaluate", 2) and not looked.covers("evaluate", 0)
    assert not looked.covers("curate", 2), "nothing builds on an evaluation"
    assert all(Restart(stage="prepare_data").covers(stage, k) for stage, k in covered + kept)
