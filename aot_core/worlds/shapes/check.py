"""Are edits of drawn scenes fair? A parser reads what was painted."""

from collections.abc import Iterator, Sequence

from PIL import Image

from aot_core.contracts.attack import ValiditySettings
from aot_core.contracts.scene import Edit, Sample, SceneObject
from aot_core.worlds.proposals import Proposal
from aot_core.worlds.shapes import world
from aot_core.worlds.shapes.parser import ParsedObject, parse_worlds
from aot_core.worlds.similarity import localized_ssim_batch
from aot_core.worlds.truth import truth
from aot_core.worlds.validity import Verdict, changed_shares, verdict_of


class WorldChecker:
    """A parser reads the edited regions, and the question's truth is derived from what it
    reads."""

    def __init__(self, settings: ValiditySettings) -> None:
        self.settings = settings

    def check(
        self,
        samples: Sequence[Sample],
        proposals: Sequence[Proposal],
        cleans: Sequence[Image.Image],
        editeds: Sequence[Image.Image],
    ) -> list[Verdict]:
        parsed = parse_worlds(editeds, unseen=False, min_confidence=0.0)
        ssims = localized_ssim_batch(cleans, editeds, [sample.question.protected for sample in samples])
        return [self._verdict(*one) for one in zip(samples, proposals, cleans, editeds, parsed, ssims, strict=True)]

    def _verdict(
        self,
        sample: Sample,
        proposal: Proposal,
        clean: Image.Image,
        edited: Image.Image,
        parsed: list[ParsedObject],
        ssim: float,
    ) -> Verdict:
        seen = {world.cell_of(found.object.box): found for found in parsed}
        regions = {world.cell_of(edit.region): edit for edit in proposal.edits}
        edits = tuple(
            edit
            if edit.kind == "remove"
            else edit.model_copy(update={"added": seen[cell].object if cell in seen else None})
            for cell, edit in regions.items()
        )
        kept = [thing for thing in sample.scene.objects if world.cell_of(thing.box) not in regions]
        # What is read in a region counts towards the truth however faint it is.
        objects = (*kept, *(seen[cell].object for cell in regions if cell in seen))
        confidence = min(_confidence(edit, seen.get(cell)) for cell, edit in regions.items())
        readings = [objects, *_other_readings(objects, [seen[cell] for cell in regions if cell in seen])]
        return verdict_of(
            self.settings,
            ssim,
            *changed_shares(clean, edited, proposal.regions),
            confidence,
            all(truth(sample.question.query, one) == sample.question.answer_text for one in readings),
            objects,
            edits,
        )


def _other_readings(objects: Sequence[SceneObject], found: Sequence[ParsedObject]) -> Iterator[tuple[SceneObject, ...]]:
    """The scene with one painted object taken for what it is nearly as like.

    Without this an Attacker learns to paint between two shapes: the parser reads one, the question asks for the other.
    """
    for thing in found:
        for attributes in thing.mistakable:
            taken = thing.object.model_copy(update={"attributes": attributes})
            yield tuple(taken if other is thing.object else other for other in objects)


def _confidence(edit: Edit, found: ParsedObject | None) -> float:
    """How surely an edit was done. A removal leaves nothing; a replacement leaves something else."""
    if edit.kind == "remove":
        return 1.0 if found is None else 0.0
    if found is None or (edit.removed is not None and found.object.attributes == edit.removed.attributes):
        return 0.0
    return found.confidence
