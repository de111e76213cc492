from collections.abc import Mapping

import numpy as np
import pytest

from aot_core.contracts.scene import EditKind, Query, Sample, Scene
from aot_core.worlds.instructions import read_instruction
from aot_core.worlds.proposals import OPTIONS, Factor, ProposalError
from aot_core.worlds.questions import make_question
from aot_core.worlds.shapes import world
from aot_core.worlds.shapes.proposals import named_contents, propose


class Prior:
    """Draws by the weights on offer."""

    def __init__(self, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)

    def choose(self, factor: Factor, options: Mapping[str, float], last: str | None) -> str:
        assert set(options) <= set(OPTIONS[factor])
        assert last is None or last in OPTIONS[factor]
        weights = np.array(list(options.values()))
        return str(self.rng.choice(list(options), p=weights / weights.sum()))


class Stubborn(Prior):
    """Always takes one option where it is on offer."""

    def __init__(self, option: str) -> None:
        super().__init__()
        self.option = option

    def choose(self, factor: Factor, options: Mapping[str, float], last: str | None) -> str:
        return self.option if self.option in options else super().choose(factor, options, last)


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
    proposal = propose(np.random.default_rng(seed), wanted, Prior(seed), edits=3, kinds=kinds)
    assert len({world.cell_of(region) for region in proposal.regions}) == 3
    for edit in proposal.edits:
        assert all(edit.region.overlap(box) == 0 for box in wanted.question.protected)
        assert (edit.removed is None) == (edit.kind == "add")
        if edit.kind == "add":
            assert not any(edit.region.overlap(thing.box) for thing in wanted.scene.objects)


def test_the_instruction_is_in_the_grammar_and_leaves_the_content_open():
    proposal = propose(np.random.default_rng(0), sample(3), Prior(), edits=2, show_question=False)
    told = read_instruction(proposal.instruction)
    assert [one.kind for one in told] == ["add", "add"]
    assert all(one.added is None for one in told)
    assert [one.where for one in told] == [world.cell_of(region) for region in proposal.regions]


def test_the_question_follows_where_it_may_be_seen():
    wanted = sample(3)
    proposal = propose(np.random.default_rng(0), wanted, Prior(), edits=1)
    assert proposal.instruction.endswith(f". Question: {wanted.question.text}")


def test_a_full_scene_is_refused_with_what_to_change():
    with pytest.raises(ProposalError, match="fewer"):
        propose(np.random.default_rng(0), sample(15), Prior(), edits=2)


@pytest.mark.parametrize("content", [name for name in OPTIONS["content"] if name.startswith("target")])
@pytest.mark.parametrize("seed", range(10))
def test_what_is_named_is_akin_as_decided_and_leaves_the_truth_alone(seed: int, content: str):
    wanted = sample(4, seed)
    kinds: tuple[EditKind, ...] = ("add", "replace")
    proposal = propose(
        np.random.default_rng(seed),
        wanted,
        Stubborn(content),
        edits=3,
        kinds=kinds,
        named_share=1.0,
        show_question=False,
    )
    target = wanted.question.query.target
    axis = content.removeprefix("target ")
    for told in read_instruction(proposal.instruction):
        assert told.added is not None
        assert target[axis] in told.added.split()
        assert set(target.values()) != set(told.added.split()), "never the object itself"


def test_contents_never_change_a_count_and_unrelated_ones_share_nothing():
    rng = np.random.default_rng(0)
    objects = world.random_objects(rng, 4)
    query = Query(kind="count", target={"shape": objects[0].attributes["shape"]})
    question = make_question(rng, query, "How many?", ["1", "2", "3", "4"], objects)
    assert question is not None
    akin = named_contents(objects, objects, question)
    assert "target shape" not in akin
    colours = {thing.attributes["colour"] for thing in objects if thing.matches(query.target)}
    assert {found["colour"] for found in akin["target colour"]} == colours
    assert all(found["colour"] not in colours for found in akin["unrelated"])


def test_places_are_told_by_the_protected_boxes():
    wanted = sample(3, 1)
    protected = [world.cell_of(box) for box in wanted.question.protected]
    for seed in range(10):
        proposal = propose(np.random.default_rng(seed), wanted, Stubborn("near"), edits=1)
        row, column = world.cell_of(proposal.regions[0])
        assert any(max(abs(row - r), abs(column - c)) == 1 for r, c in protected)
