"""What differs between two evaluations, told item by item; a whole one, of a registered version, is measured again in
`tests/flows/test_coevolution.py`."""

from dataclasses import replace
from pathlib import Path

import pytest

from aot_core.commands.reevaluation import Reevaluation, ReevaluationError, differences, reevaluate
from aot_core.evaluation.items import Item
from aot_core.store import LocalStore
from tests.promotion.conftest import uri as uri

ITEMS = [
    Item(condition, name, name, "count", "A", ("A", None, "B")) for condition in ("clean", "unseen") for name in "12"
]


def test_every_answer_counts() -> None:
    assert differences(ITEMS, list(reversed(ITEMS))) == [], "in whatever order"
    other = replace(ITEMS[3], letters=("A", "A", "B"))
    assert differences(ITEMS, [*ITEMS[:3], other]) == ["unseen 2: A - B then, A A B now"]
    assert differences(ITEMS, ITEMS[1:]) == ["clean 1: A - B then, not asked now"]


def test_it_is_told_in_words() -> None:
    same = Reevaluation("3", 4, (), {})
    assert same.same and same.told() == "version 3: all 4 items and every figure are unchanged"
    changed = Reevaluation("3", 4, ("unseen 2: A then, B now",), {"strict/unseen": (0.5, 0.25)})
    assert not changed.same
    assert changed.told().splitlines() == [
        "version 3: 1 of 4 items is answered differently, 1 figure differs",
        "unseen 2: A then, B now",
        "strict/unseen: 0.5 then, 0.25 now",
    ]


def test_what_cannot_be_measured_again_is_named(uri: str, tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    with pytest.raises(ReevaluationError, match="has no version or alias '9'"):
        reevaluate(uri, "aot-defender", "9", store, "cpu", 1)
    with pytest.raises(ReevaluationError, match=r"version 1: its evaluation \(none is named\) is not in this store"):
        reevaluate(uri, "aot-defender", "1", store, "cpu", 1)
