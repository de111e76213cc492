import numpy as np
import pytest

from aot_core.contracts.scene import EditKind, Query, Sample, Scene
from aot_core.data import world
from aot_core.data.instructions import read_instruction
from aot_core.data.proposals import ProposalError, propose
from aot_core.data.questions import make_question


def sample(count: int, seed: int = 0) -> Sample:
    rng = np.random.default_rng(seed)
    objects = world.random_objects(rng, count)
    query = Query(kind="existence", target=objects[0].attributes)
    question = make_question(rng, query, f"Is there a {objects[0].name}?", ["yes", "no"], objects)
    assert question is not None
    scene = Scene(scene_id="scene", source_id="source", width=64, height=64, objects=objects)
    return Sample(sample_id="s", split="train", scene=scene, question=question, image="images/s.png")


@pytest.mark.parametrize("seed", range(20))
def test_proposals_keep_off_protected_boxes_and_off_each_other(seed: int):
    wanted = sample(4, seed)
    kinds: tuple[EditKind, ...] = ("add", "remove", "replace")
    proposal = propose(np.random.default_rng(seed), wanted, edits=3, kinds=kinds)
    assert len({world.cell_of(region) for region in proposal.regions}) == 3
    for edit in proposal.edits:
        assert all(edit.region.overlap(box) == 0 for box in wanted.question.protected)
        assert (edit.removed is None) == (edit.kind == "add")
        if edit.kind == "add":
            assert not any(edit.region.overlap(thing.box) for thing in wanted.scene.objects)


def test_the_instruction_is_in_the_grammar_and_leaves_the_content_open():
    proposal = propose(np.random.default_rng(0), sample(3), edits=2, show_question=False)
    told = read_instruction(proposal.instruction)
    assert [one.kind for one in told] == ["add", "add"]
    assert all(one.added is None for one in told)
    assert [one.where for one in told] == [world.cell_of(region) for region in proposal.regions]


def test_the_question_follows_where_it_may_be_seen():
    wanted = sample(3)
    proposal = propose(np.random.default_rng(0), wanted, edits=1)
    assert proposal.instruction.endswith(f". Question: {wanted.question.text}")


def test_a_full_scene_is_refused_with_what_to_change():
    with pytest.raises(ProposalError, match="fewer"):
        propose(np.random.default_rng(0), sample(15), edits=2)


@pytest.mark.parametrize("seed", range(20))
def test_what_is_named_shares_an_attribute_and_leaves_the_truth_alone(seed: int):
    wanted = sample(4, seed)
    kinds: tuple[EditKind, ...] = ("add", "replace")
    proposal = propose(np.random.default_rng(seed), wanted, edits=3, kinds=kinds, named_share=1.0, show_question=False)
    asked = set(wanted.question.query.target.values())
    for told in read_instruction(proposal.instruction):
        assert told.added is not None
        assert asked & set(told.added.split()), "semantic: it shares a word with the question"
        assert asked != set(told.added.split()), "never the object itself"
