"""Which side of the bank a question is on, and what stays where there is too much."""

from pathlib import Path

import pytest

from aot_core.data.bank import equal_shares, held_back, is_held_back, question_key
from aot_core.data.dataset import read_samples
from tests.data.curated import Made, write_curated


def test_a_question_s_side_is_decided_by_source_picture_and_text_alone(tmp_path: Path) -> None:
    """Every edit of a scene, in any edition, under any id: on one side."""
    scenes = range(12)
    for folder, edits in (("one", [Made(n) for n in scenes]), ("two", [Made(n, edit=2, edited=0.5) for n in scenes])):
        write_curated(tmp_path / folder, edits)
    one, two = (read_samples(tmp_path / name) for name in ("one", "two"))
    two = [
        sample.model_copy(
            update={"split": "evaluate", "scene": sample.scene.model_copy(update={"scene_id": f"again-{n}"})}
        )
        for n, sample in enumerate(two)
    ]
    sides = [held_back(sample, 0.5) for sample in one]
    assert sides == [held_back(sample, 0.5) for sample in two] and len(set(sides)) == 2
    other = one[0].question.model_copy(update={"text": "Is there anything else?"})
    keys = {question_key("a", "hash", "?"), question_key("b", "hash", "?"), question_key("b", "", "?")}
    assert len(keys) == 2, "the picture's hash, and its id where it has none"
    assert question_key("a", "", other.text) != question_key("a", "", one[0].question.text)


def test_a_share_holds_back_as_much_and_a_larger_one_holds_it_back_too() -> None:
    keys = [question_key(f"source {n}", "", "Is there a cat?") for n in range(2000)]
    quarter, half = ({key for key in keys if is_held_back(key, share)} for share in (0.25, 0.5))
    assert 400 < len(quarter) < 600 and 900 < len(half) < 1100 and quarter < half
    assert not any(is_held_back(key, 0.0) for key in keys)


@pytest.mark.parametrize(
    ("counts", "capacity", "wanted"),
    [
        ({"w/1": 10, "w/2": 2, "w/3": 10}, 12, {"w/1": 5, "w/2": 2, "w/3": 5}),
        ({"w/1": 10, "w/2": 10}, 5, {"w/1": 2, "w/2": 3}),
        ({"w/1": 3, "w/2": 4}, 10, {"w/1": 3, "w/2": 4}),
        ({}, 10, {}),
    ],
)
def test_editions_share_the_room_and_what_one_leaves_is_the_others(
    counts: dict[str, int], capacity: int, wanted: dict[str, int]
) -> None:
    assert equal_shares(counts, capacity) == wanted
