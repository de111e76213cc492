"""Learnability by hand, and against answers that were really sampled."""

from collections.abc import Sequence

import numpy as np
import pytest
from PIL import Image

from aot_core.answers import letter_of
from aot_core.attacker.curation import Funnel, draw_shares
from aot_core.attacker.learnability import RatedEdit, choose_learnable, flat_share, rate
from aot_core.attacker.reward import combine
from aot_core.attacker.scenes import Target
from aot_core.base_models.names import SHIPPED
from aot_core.contracts.attack import RewardSettings
from aot_core.contracts.curate import CurateConfig, LearnabilitySettings, PrioritySettings
from aot_core.contracts.scene import Sample
from aot_core.defender.answering import Defender
from aot_core.worlds.proposals import Proposal
from aot_core.worlds.validity import Verdict

FUNNEL = Funnel(edited=100, intact=100, confined=100, semantic=100, valid=100)


def rated(shown: tuple[Sample, Image.Image], scenes: Sequence[Sequence[float]]) -> list[RatedEdit]:
    """Edits of the given p, scene after scene."""
    sample, image = shown
    proposal = Proposal(instruction="Add an object at row 1, column 1.", edits=())
    verdict = Verdict(1.0, 0.0, 1.0, True, (), (), intact=True, confined=True, semantic=True)
    return [
        RatedEdit((Target(sample.model_copy(update={"sample_id": f"s{number}"}), image), proposal, image, verdict), p)
        for number, of_scene in enumerate(scenes)
        for p in of_scene
    ]


def test_the_share_of_groups_that_teach_nothing() -> None:
    assert flat_share([0.5], 8) == pytest.approx(2 / 256)
    assert flat_share([0.0, 1.0], 8) == 1.0
    assert flat_share([0.5, 1.0], 2) == pytest.approx((0.5 + 1.0) / 2)
    rng = np.random.default_rng(0)
    right = rng.random((20_000, 4)) < 0.8
    assert flat_share([0.8], 4) == pytest.approx(float(np.mean(right.all(1) | ~right.any(1))), abs=0.01)


def test_the_edit_that_is_right_half_of_the_time_is_kept_of_each_scene(red_ring_sample) -> None:
    edits = rated(red_ring_sample, [[0.99, 0.5, 0.02], [0.8, 0.9, 1.0]])
    taught = choose_learnable(edits, FUNNEL, CurateConfig(minimum=1), LearnabilitySettings())
    assert [one.p for one in taught.kept] == [0.5, 0.8]
    assert (taught.funnel.hard, taught.funnel.trivial, taught.funnel.hopeless, taught.funnel.kept) == (3, 2, 1, 2)
    assert taught.flat_before == pytest.approx(flat_share([0.99, 0.5, 0.02, 0.8, 0.9, 1.0], 8))
    assert taught.flat_after == pytest.approx(flat_share([0.5, 0.8], 8))


def test_worst_of_n_keeps_the_hardest_of_each_scene(red_ring_sample) -> None:
    edits = rated(red_ring_sample, [[0.9, 0.5, 0.2], [0.8, 0.7, 1.0]])
    settings = LearnabilitySettings(choose="worst")
    taught = choose_learnable(edits, FUNNEL, CurateConfig(minimum=1), settings)
    assert [one.p for one in taught.kept] == [0.7, 0.2]


def test_few_trivial_and_hopeless_edits_are_kept(red_ring_sample) -> None:
    edits = rated(red_ring_sample, [[0.5]] * 17 + [[1.0]] * 40 + [[0.0]] * 40)
    taught = choose_learnable(edits, FUNNEL, CurateConfig(minimum=1), LearnabilitySettings())
    # 17 hard ones are 85 % of 20: 2 trivial (10 %) and 1 hopeless (5 %) beside them.
    assert [sum(one.p == p for one in taught.kept) for p in (0.5, 1.0, 0.0)] == [17, 2, 1]


def test_the_most_learnable_stand_where_there_is_a_maximum(red_ring_sample) -> None:
    edits = rated(red_ring_sample, [[0.9], [0.6], [0.5], [0.3], [1.0]])
    settings = LearnabilitySettings(trivial_share=0.0, hopeless_share=0.0)
    taught = choose_learnable(edits, FUNNEL, CurateConfig(minimum=1, maximum=2), settings)
    assert [one.p for one in taught.kept] == [0.5, 0.6]


def test_too_few_are_filled_up_by_the_next_most_learnable(red_ring_sample) -> None:
    edits = rated(red_ring_sample, [[1.0], [0.99], [0.5]])
    taught = choose_learnable(edits, FUNNEL, CurateConfig(minimum=2), LearnabilitySettings())
    assert [one.p for one in taught.kept] == [0.5, 0.99]


def test_p_is_the_share_of_right_answers_that_the_shipped_defender_would_give(red_ring_sample) -> None:
    sample, image = red_ring_sample
    defender = Defender.load(str(SHIPPED / "aot-tiny-vl"))
    edit = rated(red_ring_sample, [[0.0]])[0].edit
    p = rate(defender, [edit], 2.0)[0].p
    (said,) = defender.answer([image], [sample.question], samples=600, temperature=2.0, seed=1)
    boxed = [letter for text in said if (letter := letter_of(text, sample.question.options)) is not None]
    assert len(boxed) > 100
    # At this temperature some answers are no letter at all; p is among the letters.
    share = float(np.mean([letter == sample.question.answer for letter in boxed]))
    assert share == pytest.approx(p, abs=4 * (0.25 / len(boxed)) ** 0.5)


def test_an_attacker_that_is_beaten_and_one_beyond_reach_are_drawn_less_by_variance() -> None:
    weights = np.array([0.0 + 0.05, 0.25 + 0.05, 0.09 + 0.05])
    assert draw_shares("prioritised", [0.0, 0.5, 0.9], "variance") == pytest.approx(list(weights / weights.sum()))


def test_a_priority_without_prioritised_draws_is_refused() -> None:
    with pytest.raises(ValueError, match='priority is for draw = "prioritised", and draw is "newest"'):
        CurateConfig(priority=PrioritySettings())


def test_an_attacker_may_be_paid_for_what_teaches() -> None:
    settings = RewardSettings(learnability=1.0, dense=0.0, floor=0.0)
    assert combine(settings, 1.0, wrong=0.5, margin=0.9, learnable=1.0) == 1.0
    assert combine(settings, 1.0, wrong=1.0, margin=0.9, learnable=0.0) == 0.0, "what is hopeless earns nothing"
    assert combine(RewardSettings(learnability=0.5, dense=0.0, floor=0.0), 1.0, 1.0, 0.0, 0.0) == 0.5
