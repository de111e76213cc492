"""Who becomes a parent and what is replayed, by hand; configs that are refused."""

from collections.abc import Sequence

import pytest
from PIL import Image

from aot_core.attacker.learnability import Origin, RatedEdit
from aot_core.attacker.mutation import choose_parents, counted
from aot_core.attacker.replay import choose_with_replay, clean_of
from aot_core.contracts.artifact import ArtifactRef
from aot_core.contracts.base import decisive
from aot_core.contracts.curate import (
    CurateConfig,
    CurateInputs,
    GenerationOutputs,
    LearnabilitySettings,
    MutationSettings,
    ReplaySettings,
)
from aot_core.contracts.scene import Sample
from tests.attacker.test_learnability import FUNNEL, rated

Shown = tuple[Sample, Image.Image]
CURATED = ArtifactRef(uri=f"aot://curate/{'4' * 64}", sha256="4" * 64)
NO_SHARES = LearnabilitySettings(trivial_share=0.0, hopeless_share=0.0)


def ps(edits: Sequence[RatedEdit]) -> list[float]:
    return [one.p for one in edits]


def test_a_scene_has_one_parent_and_the_first_share_of_the_scenes_is_taken(red_ring_sample: Shown) -> None:
    pool = rated(red_ring_sample, [[0.9, 0.5, 0.1], [0.7, 0.02], [0.99, 0.95], [0.25]])
    assert ps(choose_parents(pool, MutationSettings(share=1.0))) == [0.5, 0.7, 0.25, 0.95]
    assert ps(choose_parents(pool, MutationSettings(share=0.5))) == [0.5, 0.7]
    assert ps(choose_parents(pool, MutationSettings(share=0.5, parents="hardest"))) == [0.02, 0.1]
    assert ps(choose_parents(pool, MutationSettings(share=0.5, parents="lagging"))) == [0.95, 0.25]
    assert len(choose_parents(pool, MutationSettings(share=0.01))) == 1


def test_kept_children_are_counted_by_generation(red_ring_sample: Shown) -> None:
    (root,) = rated(red_ring_sample, [[0.5]])
    child = RatedEdit(root.edit, 0.4, parent=root, change="move")
    grandchild = RatedEdit(root.edit, 0.4, parent=child, change="fewer")
    one = GenerationOutputs(edited=3, valid=2, better=1, kept=0, parents=0.2, children=0.1)
    found = counted([one, one], [root, child, grandchild, grandchild])
    assert {number: generation.kept for number, generation in found.items()} == {"1": 1, "2": 2}


def replayed(shown: Shown, probabilities: Sequence[float]) -> list[RatedEdit]:
    edits = rated(shown, [[p] for p in probabilities])
    return [RatedEdit(one.edit, one.p, origin=Origin(CURATED, f"old-{n}")) for n, one in enumerate(edits)]


def test_replayed_edits_come_in_addition_up_to_their_share_the_most_learnable_first(red_ring_sample: Shown) -> None:
    fresh, earlier = rated(red_ring_sample, [[0.5]] * 6), replayed(red_ring_sample, [0.9, 0.5, 0.999, 0.7, 0.001])
    taught = choose_with_replay(fresh, earlier, FUNNEL, CurateConfig(minimum=1), NO_SHARES, 0.25)
    # 2 of 8 are a quarter. What the present Defender has learned (0.999) or never gets is not replayed.
    assert ps(taught.kept) == [0.5] * 6 + [0.5, 0.7]
    assert taught.funnel.kept == 8
    taught = choose_with_replay(fresh, earlier, FUNNEL, CurateConfig(minimum=1), NO_SHARES, 0.9)
    assert ps(taught.kept) == [0.5] * 6 + [0.5, 0.7, 0.9]


def test_replayed_edits_take_places_of_the_least_learnable_under_a_maximum(red_ring_sample: Shown) -> None:
    fresh = rated(red_ring_sample, [[0.5], [0.6], [0.8], [0.9]])
    earlier = replayed(red_ring_sample, [0.4, 0.3, 0.2])
    taught = choose_with_replay(fresh, earlier, FUNNEL, CurateConfig(minimum=4, maximum=4), NO_SHARES, 0.5)
    assert ps(taught.kept) == [0.5, 0.6, 0.4, 0.3]


def test_without_earlier_rounds_the_lesson_is_the_same(red_ring_sample: Shown) -> None:
    fresh = rated(red_ring_sample, [[0.5], [0.6], [1.0]])
    taught = choose_with_replay(fresh, [], FUNNEL, CurateConfig(minimum=1), LearnabilitySettings(), 0.5)
    assert ps(taught.kept) == [0.5, 0.6]


def test_the_scene_of_a_curated_sample_is_as_before_the_edit(red_ring_sample: Shown) -> None:
    clean = red_ring_sample[0]
    curated = clean.model_copy(
        update={"sample_id": "s0-edit-00007", "edited_image": "x.png", "ssim": 1.0, "edited_correct": 0.5}
    )
    assert clean_of(curated) == clean


def test_what_goes_by_learnability_says_so() -> None:
    with pytest.raises(ValueError, match=r"mutation and replay: chosen by p \(1 - p\).*curate.learnability"):
        CurateConfig(mutation=MutationSettings(), replay=ReplaySettings())
    with pytest.raises(ValueError, match=r"replay: .*learnability is not set"):
        CurateConfig(replay=ReplaySettings())
    with pytest.raises(ValueError, match=r"edits is \(3, 2\)"):
        MutationSettings(edits=(3, 2))
    with pytest.raises(ValueError, match="changes"):
        MutationSettings(changes=())


def test_a_config_without_them_keeps_its_identity() -> None:
    assert not {"mutation", "replay"} & set(decisive(CurateConfig()))
    assert {"mutation", "replay"} <= set(
        decisive(CurateConfig(learnability=NO_SHARES, mutation=MutationSettings(), replay=ReplaySettings()))
    )
    assert not CurateInputs.model_fields["earlier"].is_required()
