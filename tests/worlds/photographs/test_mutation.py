"""A mutated edit of a photograph differs from its parent in exactly one thing, and spares what is asked about."""

from collections.abc import Sequence
from typing import get_args

import numpy as np
import pytest

from aot_core.contracts.attack import Change
from aot_core.contracts.scene import Edit, EditKind
from aot_core.worlds.instructions import read_instruction
from aot_core.worlds.photographs.mutation import mutate_in_photograph
from aot_core.worlds.photographs.proposals import nameable
from tests.worlds.photographs.test_proposals import CUP, DOG, photograph, proposals

KINDS: tuple[EditKind, ...] = ("add", "replace")


def things(edits: Sequence[Edit]) -> list[tuple[str | None, ...]]:
    """Kind, place and thing of each edit."""
    told = [read_instruction(edit.instruction)[0] for edit in edits]
    return [(one.kind, str(one.where), one.added) for one in told]


@pytest.mark.parametrize("change", get_args(Change))
def test_a_child_differs_in_one_thing_and_spares_the_rest(change: Change) -> None:
    sample = photograph()
    made = 0
    for seed, parent in enumerate(proposals(KINDS)):
        child = mutate_in_photograph(np.random.default_rng(seed), sample, parent.edits, change)
        if child is None:
            continue
        made += 1
        before, after = things(parent.edits), things(child.edits)
        if change == "more":
            assert after[:-1] == before
            assert after[-1][2] in nameable(sample.question, sample.scene.objects)
        elif change == "fewer":
            assert after in (before[:1], before[1:])
        else:
            (changed,) = [(old, new) for old, new in zip(before, after, strict=True) if old != new]
            differs = [place for place, (old, new) in enumerate(zip(*changed, strict=True)) if old != new]
            assert differs == [1 if change == "move" else 2]
        regions = [edit.region for edit in child.edits]
        assert all(region.overlap(DOG) == 0 for region in regions)
        assert all(one.overlap(other) == 0 for one in regions for other in regions if one is not other)
        replaced = [edit.region for edit in child.edits if edit.kind == "replace"]
        assert all(region == CUP for region in replaced)
    assert made > 20
