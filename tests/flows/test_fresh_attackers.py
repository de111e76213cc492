"""A campaign whose Attackers start afresh every round, and whose lessons are drawn by measured success."""

from pathlib import Path

import pytest

from tests.flows.test_coevolution import aot, finish, read_summary

pytestmark = [pytest.mark.timeout(900), pytest.mark.slow]


def test_every_round_s_attacker_starts_where_the_first_did(tmp_path: Path) -> None:
    settings = [
        "rounds=2",
        'attacker_rounds="fresh"',
        'curate.draw="prioritised"',
        'curate.priority={form="variance",scenes=4}',
        "curate.learnability={}",
        "curate.edits_per_scene=3",
        "curate.mutation={generations=1}",
        "curate.replay={share=0.5}",
        'attacker_round.tactics.start="fresh"',
        "attacker_round.candidates=40",
        "attacker_round.patience={every=1,looks=1,scenes=4}",
        "evaluate.worst_of=2",
        'defender_round.loss="gspo"',
    ]
    finish(aot(tmp_path, *(word for setting in settings for word in ("--set", setting))))
    summary = read_summary(tmp_path)
    warm = summary.find("warm_start_attacker", 0)
    rounds = [summary.find("attacker_round", number) for number in (1, 2)]
    curated = summary.find("curate", 2)
    last = summary.find("evaluate", 2)
    assert warm is not None and curated is not None and last is not None
    for attack in rounds:
        assert attack is not None
        assert attack.identity.inputs["attacker"] == warm.artifact.sha256
        assert 1 <= attack.outputs["updates"] <= 2
    assert set(curated.outputs["successes"]) == {"1", "2"}
    assert curated.outputs["flat_after"] <= curated.outputs["flat_before"]
    first = summary.find("curate", 1)
    assert first is not None
    assert first.identity.inputs.get("earlier", []) == []
    assert curated.identity.inputs["earlier"] == [first.artifact.sha256]
    assert curated.outputs["replay"]["candidates"] == first.outputs["kept"]
    assert curated.outputs["mutation"]["1"]["edited"] > 0
    assert last.outputs["n"]["worst_of_n"] > 0
    (report,) = (tmp_path / "campaigns").glob("*/report.html")
    assert "worst of n" in report.read_text()
