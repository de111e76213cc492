from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from aot_core.contracts.scene import DistractorFamily, Edit, Question, Sample, Scene
from aot_core.evaluation.figures import summarise
from aot_core.evaluation.items import (
    Condition,
    Item,
    ask,
    choose,
    clean_samples,
    family_samples,
    item_id,
    paired,
    read_items,
    write_items,
)
from aot_core.worlds.shapes import world
from aot_core.worlds.shapes.questions import ask_world


def sample(number: int, family: DistractorFamily | None = None) -> Sample:
    """A question about scene `number`; with a family, its pair."""
    rng = np.random.default_rng(number)
    objects = world.random_objects(rng, 3)
    question = ask_world(rng, "existence", objects)
    assert question is not None
    scene = Scene(scene_id=f"s{number}", source_id=f"s{number}", width=64, height=64, objects=objects)
    if family is None:
        return Sample(sample_id=f"{number}", split="evaluate", scene=scene, question=question, image="a.png")
    edit = Edit(kind="add", instruction="Add.", family=family, region=world.cell_box((0, 0)))
    return Sample(
        sample_id=f"{number}-{family}",
        split="evaluate",
        scene=scene,
        question=question,
        image="a.png",
        edits=(edit,),
        edited_image="b.png",
    )


def item(condition: str, name: str, letters: Sequence[str | None], kind: str = "existence") -> Item:
    return Item(condition, name, name, kind, "A", tuple(letters))


class ScriptedAnswerer:
    """Answers from a script: what is tested here is the asking, and the right answers must be known."""

    def __init__(self, script: list[str]) -> None:
        self.script, self.asked = script, 0

    def answer(
        self, images: Sequence[Image.Image], questions: Sequence[Question], *, samples: int, **_: float
    ) -> list[list[str]]:
        assert len(images) == len(questions)
        self.asked += len(questions)
        return [self.script[:samples] for _ in questions]


def test_clean_samples_hold_every_question_once() -> None:
    pairs = [sample(1, "semantic"), sample(1), sample(1, "unseen"), sample(2, "semantic")]
    chosen = clean_samples(pairs)
    assert [s.sample_id for s in chosen] == ["1", "2-semantic"]
    assert [s.sample_id for s in family_samples(pairs, "semantic")] == ["1-semantic", "2-semantic"]
    assert family_samples(pairs, "irrelevant") == []


def test_choice_is_the_same_questions_in_every_condition() -> None:
    clean = [sample(i) for i in range(20)]
    pairs = [sample(i, "semantic") for i in reversed(range(20))]
    first, second = choose(clean, 7, seed=3), choose(pairs, 7, seed=3)
    assert len(first) == 7
    assert {item_id(s) for s in first} == {item_id(s) for s in second}
    assert {item_id(s) for s in choose(clean, 7, seed=4)} != {item_id(s) for s in first}
    assert choose(clean, None, seed=3) == clean


def test_asking_extracts_letters_and_goes_in_chunks() -> None:
    samples = [sample(i) for i in range(70)]
    defender = ScriptedAnswerer([r"\boxed{A}", "I cannot tell", r"\boxed{H}"])
    picture = Image.new("RGB", (64, 64))
    items = ask(defender, Condition("clean", samples, lambda _: picture), samples=3, temperature=1.0, seed=0)
    assert defender.asked == len(items) == 70
    # Two options only, so H is no answer.
    assert all(i.letters == ("A", None, None) for i in items)
    assert items[0].correct == (samples[0].question.answer == "A", False, False)


def test_strict_counts_a_question_only_if_all_answers_are_right() -> None:
    items = [
        item("clean", "1", "AAA"),
        item("clean", "2", "AAB", kind="count"),
        item("attacker_1", "1", ("A", None, "B")),
        item("attacker_1", "2", "AAA", kind="count"),
        item("semantic", "1", "BBB"),
        item("semantic", "2", "AAA", kind="count"),
        item("semantic", "3", "ABA", kind="count"),
    ]
    outputs = summarise(items, {"attacker_1": 0.5, "attacker_2": 0.0})
    assert outputs.strict == {"clean": 0.5, "attacker_1": 0.5, "semantic": pytest.approx(1 / 3)}
    assert outputs.mean == {
        "clean": pytest.approx(5 / 6),
        "attacker_1": pytest.approx(4 / 6),
        "semantic": pytest.approx(5 / 9),
    }
    assert outputs.n == {"clean": 2, "attacker_1": 2, "attacker_2": 0, "semantic": 3}
    assert outputs.valid == {"attacker_1": 0.5, "attacker_2": 0.0}
    assert outputs.kinds["semantic/count"] == 0.5 and outputs.kinds_n["semantic/count"] == 2
    assert (outputs.worst_condition, outputs.worst) == ("semantic", pytest.approx(1 / 3))
    assert outputs.low["clean"] < 0.5 < outputs.high["clean"]


def test_summary_wants_clean_items() -> None:
    with pytest.raises(ValueError, match="no clean question"):
        summarise([item("semantic", "1", "AAA")], {})


def test_items_survive_parquet_and_pair_up(tmp_path: Path) -> None:
    first = [item("clean", "1", "AAA"), item("clean", "2", ("A", None, "B")), item("clean", "3", "AAA")]
    second = [item("clean", "3", "BBB"), item("clean", "1", "AAA"), item("clean", "4", "AAA")]
    write_items(tmp_path / "items.parquet", [*first, item("semantic", "1", "BAA")])
    assert read_items(tmp_path / "items.parquet", "clean") == first
    assert paired(first, second) == ([True, True], [True, False])


def test_pairing_wants_common_questions_and_one_condition() -> None:
    with pytest.raises(ValueError, match="no question in common"):
        paired([item("clean", "1", "AAA")], [item("clean", "2", "AAA")])
    with pytest.raises(ValueError, match="one condition at a time"):
        paired([item("clean", "1", "AAA"), item("semantic", "1", "AAA")], [item("clean", "1", "AAA")])
