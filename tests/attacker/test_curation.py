from collections.abc import Sequence

import numpy as np
import pytest
from PIL import Image

from aot_core.attacker.curation import CuratedEdit, Funnel, choose, draw_shares, make_edits
from aot_core.attacker.scenes import AttackError, Target
from aot_core.attacker.tactics import AttackPolicy
from aot_core.contracts.curate import CurateConfig
from aot_core.contracts.scene import Sample
from aot_core.worlds.instructions import read_instruction
from aot_core.worlds.proposals import Proposal
from aot_core.worlds.shapes import world
from aot_core.worlds.validity import Verdict

FUNNEL = Funnel(edited=100, intact=100, confined=100, semantic=100, valid=100)


class Painter:
    """A perfect editor: draws a purple cross where it is told to add; a lazy one does nothing."""

    def __init__(self, sample: Sample, lazy: bool = False) -> None:
        self.sample, self.lazy = sample, lazy

    def edit(self, images: Sequence[Image.Image], instructions: Sequence[str], *, seed: int) -> list[Image.Image]:
        rng = np.random.default_rng(seed)
        edited = []
        for image, told in zip(images, instructions, strict=True):
            cells = [one.where for one in read_instruction(told.split(" Question:")[0])]
            paint = {"colour": "purple", "shape": "cross"}
            added = [world.place(rng, paint, cell) for cell in cells if not isinstance(cell, str)]
            scene = world.render([*self.sample.scene.objects, *added], world.Backdrop())
            edited.append(image if self.lazy else scene)
        return edited


def curated(correct: int, target: Target) -> CuratedEdit:
    right = target.sample.question.answer
    answers = tuple(right if i < correct else None for i in range(4))
    proposal = Proposal(instruction="Add an object at row 1, column 1.", edits=())
    verdict = Verdict(1.0, 0.0, 1.0, True, (), (), intact=True, confined=True, semantic=True)
    return CuratedEdit(target, proposal, target.image, verdict, answers, (right,) * 4)


def test_valid_edits_pass_and_are_counted(red_ring_sample: tuple[Sample, Image.Image]):
    target = Target(*red_ring_sample)
    config = CurateConfig(edits_per_scene=3).model_copy(update={"proposals": _adds()})
    valid, funnel = make_edits(Painter(target.sample), AttackPolicy(), [target], config, np.random.default_rng(0))
    assert len(valid) == funnel.valid == funnel.edited == 3


def test_no_valid_edit_is_an_error_that_says_what_to_change(red_ring_sample: tuple[Sample, Image.Image]):
    target = Target(*red_ring_sample)
    with pytest.raises(AttackError, match=r"0 of 2 edits are valid.*min_ssim"):
        make_edits(
            Painter(target.sample, lazy=True), AttackPolicy(), [target], CurateConfig(), np.random.default_rng(0)
        )


def test_the_mix_keeps_all_hard_edits_and_the_shares_of_the_others(red_ring_sample: tuple[Sample, Image.Image]):
    target = Target(*red_ring_sample)
    edits = [curated(correct, target) for correct in [0] * 30 + [2] * 20 + [4] * 50]
    config = CurateConfig(hopeless_share=0.1, trivial_share=0.4, minimum=1)
    kept, funnel = choose(edits, FUNNEL, config, np.random.default_rng(0))
    # 20 hard ones are half of the whole: 40 in all, 4 hopeless and 16 trivial.
    assert [sum(edit.correct == share for edit in kept) for share in (0, 0.5, 1)] == [4, 20, 16]
    assert (funnel.hopeless, funnel.hard, funnel.trivial, funnel.kept) == (30, 20, 50, 40)


def test_the_minimum_is_filled_with_trivial_ones_first(red_ring_sample: tuple[Sample, Image.Image]):
    target = Target(*red_ring_sample)
    edits = [curated(correct, target) for correct in [0] * 30 + [2] * 2 + [4] * 10]
    config = CurateConfig(hopeless_share=0.0, trivial_share=0.0, minimum=20)
    kept, _ = choose(edits, FUNNEL, config, np.random.default_rng(0))
    assert [sum(edit.correct == share for edit in kept) for share in (0, 0.5, 1)] == [8, 2, 10]


def test_the_maximum_holds(red_ring_sample: tuple[Sample, Image.Image]):
    target = Target(*red_ring_sample)
    config = CurateConfig(minimum=1, maximum=5)
    kept, _ = choose([curated(2, target)] * 9, FUNNEL, config, np.random.default_rng(0))
    assert len(kept) == 5


def _adds():
    from aot_core.contracts.attack import ProposalSettings

    return ProposalSettings(kinds=("add",))


def test_who_is_given_a_scene() -> None:
    assert draw_shares("newest", [0.9, 0.1]) == [0.0, 1.0]
    assert draw_shares("uniform", [0.9, 0.1, 0.0]) == pytest.approx([1 / 3] * 3)
    assert draw_shares("prioritised", [0.35, 0.0, 0.0]) == pytest.approx([0.8, 0.1, 0.1])
