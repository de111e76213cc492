"""Edited photographs before a judge: what it is shown and asked, and what its answers, clear or not, come to.

The judges answer by a rule (what a model would say is not what is tested), but for the truth one that looks: it reads
the picture that it is shown with the procedural world's parser.
"""

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from PIL import Image

from aot_core.contracts.attack import ValiditySettings
from aot_core.contracts.scene import Edit, Question, Sample, SceneObject
from aot_core.worlds.instructions import add_instruction, remove_instruction
from aot_core.worlds.opening import world_of
from aot_core.worlds.photographs.check import PhotoChecker
from aot_core.worlds.proposals import Proposal
from aot_core.worlds.shapes import world
from aot_core.worlds.shapes.parser import parse_world
from aot_core.worlds.truth import truth
from aot_core.worlds.validity import Verdict

NAMED = ValiditySettings(judge="some/judge")
CELL = (3, 3)
YES, NO = "\\boxed{A}", "\\boxed{B}"

Scene = tuple[Sample, Image.Image]
Rule = Callable[[str, Image.Image], str]


class Judge:
    """Answers by a rule on question and picture."""

    def __init__(self, says: Rule) -> None:
        self.says = says
        self.asked: list[str] = []
        self.sizes: list[tuple[int, int]] = []

    def answer(
        self,
        images: Sequence[Image.Image],
        questions: Sequence[Question],
        *,
        samples: int,
        temperature: float,
        seed: int,
    ) -> list[list[str]]:
        del seed
        assert (samples, temperature) == (1, 0.0)
        self.asked += [question.text for question in questions]
        self.sizes += [image.size for image in images]
        return [[self.says(question.text, image)] for image, question in zip(images, questions, strict=True)]


def fair(text: str, _image: Image.Image) -> str:
    """What speaks for the edit, whatever is asked."""
    against = ("an answer other than", "mere texture", "Is there a blue square in")
    return NO if any(words in text for words in against) else YES


def proposal(named: str | None = None) -> Proposal:
    told = add_instruction({"name": named} if named else None, "lower right")
    edit = Edit(kind="add", instruction=told, family="semantic", region=world.cell_box(CELL))
    return Proposal(instruction=told, edits=(edit,))


def painted(sample: Sample, colour: str, shape: str) -> Image.Image:
    thing = world.place(np.random.default_rng(1), {"colour": colour, "shape": shape}, CELL)
    return world.render((*sample.scene.objects, thing), world.Backdrop())


def verdict(scene: Scene, judge: Judge, told: Proposal | None = None, edited: Image.Image | None = None) -> Verdict:
    sample, clean = scene
    edited = edited or painted(sample, "red", "circle")
    (found,) = PhotoChecker(NAMED, judge).check([sample], [told or proposal()], [clean], [edited])
    return found


def test_a_fair_edit_passes_and_each_objection_fails_it_for_its_own_reason(red_ring_sample: Scene) -> None:
    judge = Judge(fair)
    assert verdict(red_ring_sample, judge, proposal("kite")).valid
    assert len(judge.asked) == 5
    assert 'asked: "Is there a red ring?"' in judge.asked[0] and 'Is "yes" the right answer?' in judge.asked[0]
    assert "show a kite that the left one lacks" in judge.asked[4]
    # The truth is asked of the whole picture, the object of its region before and after.
    assert judge.sizes[:2] == [(64, 64)] * 2 and judge.sizes[2][0] > judge.sizes[2][1]
    objections = {
        "the right answer?": (False, True),
        "an answer other than": (False, True),
        "recognisable object": (True, False),
        "mere texture": (True, False),
        "show a kite": (True, False),
    }
    for words, (truth_kept, semantic) in objections.items():
        other = Judge(
            lambda text, image, words=words: _other(fair(text, image)) if words in text else fair(text, image)
        )
        found = verdict(red_ring_sample, other, proposal("kite"))
        assert (found.truth_kept, found.semantic, found.valid) == (truth_kept, semantic, False), words
        assert found.confidence == float(semantic)


def test_an_editor_that_paints_the_answer_in_its_region_is_seen(red_ring_sample: Scene) -> None:
    """The question: is there a red ring? Without one in the scene, painting one makes the right answer wrong."""
    sample, _ = red_ring_sample
    square: tuple[SceneObject, ...] = tuple(thing for thing in sample.scene.objects if thing.name == "blue square")
    letter = "B" if sample.question.answer == "A" else "A"
    question = sample.question.model_copy(update={"answer": letter, "protected": (square[0].box,)})
    scene = sample.scene.model_copy(update={"objects": square})
    without = sample.model_copy(update={"question": question, "scene": scene})
    clean = world.render(square, world.Backdrop())

    def looks(text: str, image: Image.Image) -> str:
        if "somebody was asked" not in text:
            return fair(text, image)
        holds = truth(question.query, [found.object for found in parse_world(image)]) == question.answer_text
        return YES if holds == ("the right answer?" in text) else NO

    answer, distractor = painted(without, "red", "ring"), painted(without, "red", "circle")
    given = ([without] * 2, [proposal()] * 2, [clean] * 2, [answer, distractor])
    by_regions = PhotoChecker(ValiditySettings()).check(*given)
    judged = PhotoChecker(NAMED, Judge(looks)).check(*given)
    assert [found.valid for found in by_regions] == [True, True]  # what a judge is for
    assert [found.truth_kept for found in judged] == [False, True]
    assert [found.valid for found in judged] == [False, True]


@pytest.mark.parametrize("said", [YES, NO, "Yes.", "\\boxed{yes}", "A", "\\boxed{A} or \\boxed{B}", "\\boxed{a}", ""])
def test_who_says_the_same_to_everything_or_nothing_clear_passes_nothing(red_ring_sample: Scene, said: str) -> None:
    found = verdict(red_ring_sample, Judge(lambda _text, _image: said))
    assert not found.truth_kept and not found.semantic and not found.valid


def test_unclear_answers_are_told(red_ring_sample: Scene, caplog: pytest.LogCaptureFixture) -> None:
    verdict(red_ring_sample, Judge(lambda text, image: "hm" if "texture" in text else fair(text, image)))
    assert "1 of 4 answers are not a clear yes or no and count against the edit, such as 'hm'" in caplog.text
    caplog.clear()
    verdict(red_ring_sample, Judge(fair))
    assert not caplog.text


def test_what_was_to_go_must_be_gone(red_ring_sample: Scene) -> None:
    sample, _ = red_ring_sample
    square = next(thing for thing in sample.scene.objects if thing.name == "blue square")
    told = remove_instruction({"name": "blue square"}, "lower left")
    edit = Edit(kind="remove", instruction=told, family="semantic", region=world.cell_box((3, 0)), removed=square)
    gone = world.render([thing for thing in sample.scene.objects if thing is not square], world.Backdrop())
    judge = Judge(fair)
    assert verdict(red_ring_sample, judge, Proposal(instruction=told, edits=(edit,)), gone).valid
    assert judge.asked[2:] == ["Is there a blue square in the picture?"]
    stays = Judge(lambda text, image: YES if "Is there" in text and "somebody" not in text else fair(text, image))
    assert not verdict(red_ring_sample, stays, Proposal(instruction=told, edits=(edit,)), gone).semantic


def test_only_what_is_fair_otherwise_is_asked_about(red_ring_sample: Scene) -> None:
    sample, clean = red_ring_sample
    judge = Judge(fair)
    good = painted(sample, "red", "circle")
    lazy, done = PhotoChecker(NAMED, judge).check([sample] * 2, [proposal()] * 2, [clean] * 2, [clean, good])
    assert (lazy.valid, done.valid) == (False, True)
    assert len(judge.asked) == 4
    judge.asked.clear()
    PhotoChecker(NAMED, judge).check([sample], [proposal()], [clean], [clean])
    assert judge.asked == []


def test_a_judge_that_is_named_must_be_handed_in_and_a_parser_needs_none(red_ring_sample: Scene) -> None:
    sample, clean = red_ring_sample
    with pytest.raises(ValueError, match=r"validity\.judge names 'some/judge'"):
        PhotoChecker(NAMED)
    judge = Judge(fair)
    world_of(sample).check(NAMED, [sample], [proposal()], [clean], [painted(sample, "red", "circle")], judge)
    assert judge.asked == []


def _other(said: str) -> str:
    return NO if said == YES else YES
