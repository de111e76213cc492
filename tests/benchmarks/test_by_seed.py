"""Tables over seeds where a condition is missing for some of them: pairs stay within a seed, gaps are named."""

import argparse
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

from aot_core.contracts.evaluate import CLEAN, WORST_OF_N
from aot_core.evaluation.items import Item

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def lessons(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.setattr(sys, "path", [str(BENCHMARKS), *sys.path])
    import lessons

    return lessons


@pytest.fixture
def coevolution(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.setattr(sys, "path", [str(BENCHMARKS), *sys.path])
    import coevolution

    return coevolution


def exam(right: int, conditions: tuple[str, ...]) -> list[Item]:
    """Ten questions a condition, the first `right` of them answered right. Every seed's have the same numbers, so that
    pairing across seeds raises nothing."""
    return [
        Item(condition, f"q{number}", f"s{number}", "existence", "A", ("A" if number < right else "B",))
        for condition in conditions
        for number in range(10)
    ]


def row(text: str, first: str) -> list[str]:
    """The cells of the last table row that begins with `first`."""
    found = [line for line in text.splitlines() if line.startswith(f"| {first} |")]
    return [cell.strip() for cell in found[-1].strip("|").split("|")]


BOTH, CLEAN_ALONE = (CLEAN, WORST_OF_N), (CLEAN,)


def test_lessons_pairs_by_seed_and_names_what_is_missing(lessons: ModuleType) -> None:
    answers = {}
    # The first arm lacks seed 1, the other seed 2: paired by position, seed 2 (0 right) would meet seed 1 (10 right).
    for arm, met in (("warm start", (BOTH, BOTH, BOTH)), ("mix", (BOTH, CLEAN_ALONE, BOTH)),
                     ("learnability", (BOTH, BOTH, CLEAN_ALONE))):  # fmt: skip
        for seed, right in ((10, 5), (11, 10), (12, 0)):
            lessons.keep(answers, arm, seed, exam(right, met[seed - 10]))
    arguments = argparse.Namespace(
        arms=["mix", "learnability"], worst_of=4, config="tiny.toml", seeds=[10, 11, 12], edits=8, overrides=[]
    )
    text = lessons.report(arguments, answers, {})
    paired = row(text, "learnability")[1:]
    assert [one.split()[0] for one in paired] == ["+0.0", "+0.0"]
    assert "worst of 4, seed 11 (mix); worst of 4, seed 12 (learnability)" in text
    assert "Missing" not in lessons.report(arguments, {"warm start": {CLEAN: answers["mix"][CLEAN]},
                                                       "mix": {CLEAN: answers["mix"][CLEAN]},
                                                       "learnability": {CLEAN: answers["mix"][CLEAN]}}, {})  # fmt: skip


def test_coevolution_draws_and_writes_what_some_seeds_lack(coevolution: ModuleType, tmp_path: Path) -> None:
    answers = {}
    players = ["base", "sft", "clean_rl", "picture_rl", "static_rl", "oracle_rl", "aot_1", "aot_2"]
    for player in players:
        for seed, right in ((3, 5), (4, 10)):
            # The first seed's first Attacker made no valid edit.
            met = (CLEAN, "attacker_2") if seed == 3 else (CLEAN, "attacker_1", "attacker_2")
            coevolution.keep(answers, player, seed, exam(right - 2 * player.startswith("clean"), met))
    arguments = argparse.Namespace(config="tiny.toml", seeds=[3, 4], overrides=[], output=tmp_path / "table")
    coevolution.write(arguments, answers, 2, [], {})
    text = (tmp_path / "table.md").read_text()
    assert "Attacker 1, seed 3." in text
    assert row(text, "1")[1:] == ["100.0", "100.0", "+0.0 (-16.3..+16.3), p 1"]
    told = json.loads((tmp_path / "table.json").read_text())["strict"]
    assert told["clean_rl"] == {CLEAN: [0.3, 0.8], "attacker_2": [0.3, 0.8], "attacker_1": [None, 0.8]}
    assert (tmp_path / "table.png").exists() and (tmp_path / "table-rounds.png").exists()
