from collections.abc import Mapping

import numpy as np
import pytest

from aot_core.contracts.scene import Box, EditKind, Query, Question, Sample, Scene, SceneObject
from aot_core.worlds.instructions import read_instruction
from aot_core.worlds.photographs.proposals import nameable, propose_in_photograph
from aot_core.worlds.proposals import OPTIONS, Factor, ProposalError

DOG, CUP = Box(x=20, y=20, width=100, height=90), Box(x=430, y=300, width=60, height=60)


class Dice:
    """Chooses by the prior."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng

    def choose(self, factor: Factor, options: Mapping[str, float], last: str | None) -> str:
        assert set(options) <= set(OPTIONS[factor])
        assert last is None or last in OPTIONS[factor]
        weights = np.array(list(options.values()))
        return str(self.rng.choice(list(options), p=weights / weights.sum()))


def photograph(protected: tuple[Box, ...] = (DOG,)) -> Sample:
    objects = (SceneObject(box=DOG, attributes={"name": "dog"}), SceneObject(box=CUP, attributes={"name": "cup"}))
    question = Question(
        query=Query(kind="existence", target={"name": "dog"}),
        text="Is there a dog in the picture?",
        options=("yes", "no"),
        answer="A",
        protected=protected,
    )
    scene = Scene(scene_id="s", source_id="s", width=600, height=400, objects=objects)
    return Sample(sample_id="s", split="train", scene=scene, question=question, image="s.png")


def proposals(kinds: tuple[EditKind, ...], edits: int = 2, named_share: float = 0.5, sample: Sample | None = None):
    for seed in range(40):
        rng = np.random.default_rng(seed)
        yield propose_in_photograph(
            rng, sample or photograph(), Dice(rng), edits=edits, kinds=kinds, named_share=named_share
        )


@pytest.mark.parametrize("kinds", [("add",), ("remove",), ("replace",), ("add", "remove", "replace")])
def test_proposals_are_in_the_grammar_and_spare_what_is_asked_about(kinds: tuple[EditKind, ...]) -> None:
    for proposal in proposals(kinds):
        told = read_instruction(proposal.instruction.partition(" Question: ")[0])
        assert [one.kind for one in told] == [edit.kind for edit in proposal.edits]
        assert len(proposal.edits) == 2
        for edit, other in zip(proposal.regions, proposal.regions[1:], strict=False):
            assert edit.overlap(other) == 0
        assert all(region.overlap(DOG) == 0 for region in proposal.regions)
        assert all(region.right <= 600 and region.bottom <= 400 for region in proposal.regions)


def test_two_edits_never_work_on_the_same_pixels() -> None:
    """A thing of the lower right that reaches into the lower middle."""
    bench = SceneObject(box=Box(x=370, y=300, width=180, height=60), attributes={"name": "bench"})
    plain = photograph()
    sample = plain.model_copy(
        update={"scene": plain.scene.model_copy(update={"objects": (plain.scene.objects[0], bench)})}
    )
    kinds: set[str] = set()
    for proposal in proposals(("add", "replace"), edits=3, sample=sample):
        kinds |= {edit.kind for edit in proposal.edits}
        for number, region in enumerate(proposal.regions):
            assert all(region.overlap(other) == 0 for other in proposal.regions[:number])
    assert kinds == {"add", "replace"}


def test_what_is_removed_or_replaced_is_there_and_not_asked_about() -> None:
    for proposal in proposals(("remove", "replace"), edits=1):
        (edit,) = proposal.edits
        assert edit.removed is not None
        assert (edit.removed.attributes["name"], edit.region) == ("cup", CUP)
        assert "the cup in the lower right" in proposal.instruction


def test_nothing_is_named_that_is_there_or_asked_about() -> None:
    sample = photograph()
    names = nameable(sample.question, sample.scene.objects)
    assert {"bottle", "chair"} <= set(names)
    assert not {"dog", "cup"} & set(names)
    cats = sample.question.model_copy(update={"text": "How many cats and teddy bears are there?"})
    assert not {"cat", "teddy bear"} & set(nameable(cats, ()))


def test_a_named_share_of_zero_leaves_the_thing_to_the_editor() -> None:
    assert all("Add an object in" in proposal.instruction for proposal in proposals(("add",), named_share=0.0))
    assert not any("an object" in proposal.instruction for proposal in proposals(("add",), named_share=1.0))


def test_a_picture_without_room_says_so() -> None:
    everything = photograph((Box(x=0, y=0, width=600, height=400),))
    with pytest.raises(ProposalError, match="0 places for 1 edits"):
        next(proposals(("add",), edits=1, sample=everything))
