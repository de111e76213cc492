"""Is an edit fair? The question's objects stand, nothing else changed, what was painted is an object, the
truth holds.

Samples, proposals and pixels flow in, verdicts out: every figure by itself, so that a funnel can be counted
and a reward explained. Truth is derived anew from what the edited image shows: an editor's first cheat is to
answer the question "is there a red ring?" by painting one. A parser reads procedural scenes; about photographs an
MLLM may be asked (`photo_judge`), which a stage hands in.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from PIL import Image

from aot_core.contracts.attack import ValiditySettings
from aot_core.contracts.protocols import Answerer
from aot_core.contracts.scene import Box, Edit, Sample, SceneObject
from aot_core.worlds.photographs import judge as photo_judge
from aot_core.worlds.shapes import world
from aot_core.worlds.shapes.parser import ParsedObject, parse_worlds
from aot_core.worlds.shapes.proposals import Proposal
from aot_core.worlds.similarity import localized_ssim_batch
from aot_core.worlds.truth import truth

VISIBLE = 16
"""A pixel has changed visibly when a channel differs by more than this (grey values)."""


@dataclass(frozen=True)
class Verdict:
    """What was found on one edited image. Everything is measured, whether or not an earlier check failed;
    but a judge is only asked about what is fair otherwise."""

    ssim: float
    """Localized, on the protected boxes."""
    outside: float
    """Share of the image's pixels that changed visibly outside the edited regions."""
    confidence: float
    """The least confidence (0..1) with which an object was read in an edited region; 0 where an edit was not
    done."""
    truth_kept: bool
    objects: tuple[SceneObject, ...]
    """All objects of the edited scene, as read."""
    edits: tuple[Edit, ...]
    """The proposal's edits, `added` filled in as read."""
    intact: bool
    confined: bool
    semantic: bool
    changed: float = 0.0
    """Share of the image's pixels that changed visibly, wherever they lie: what the edit cost."""
    affordable: bool = True

    @property
    def valid(self) -> bool:
        return self.intact and self.confined and self.semantic and self.affordable and self.truth_kept


class ValidityChecker(Protocol):
    """A way to check edits; which one depends on where the scenes come from."""

    def check(
        self,
        samples: Sequence[Sample],
        proposals: Sequence[Proposal],
        cleans: Sequence[Image.Image],
        editeds: Sequence[Image.Image],
    ) -> list[Verdict]:
        """A verdict for every edited image. Raises ValueError where the sequences differ in length."""
        ...


def checker_for(sample: Sample, settings: ValiditySettings, judge: Answerer | None = None) -> ValidityChecker:
    """The checker for a sample's kind of scene: procedural objects have a colour and a shape.

    Args:
        judge: the model that `settings.judge` names, for photographs; a parser reads procedural scenes.

    Raises ValueError where the settings name a judge for photographs and none is handed in.
    """
    procedural = all({"colour", "shape"} <= set(thing.attributes) for thing in sample.scene.objects)
    return WorldChecker(settings) if procedural else PhotoChecker(settings, judge)


class WorldChecker:
    """Procedural scenes: a parser reads the edited regions, and the question's truth is derived from what it
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
        return _verdict(
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


class PhotoChecker:
    """Photographs: no parser reads them.

    Without a judge the truth holds by construction, as no region touches a protected box, and an edit is done where its
    region changed: an editor that paints the answer, or a texture, in its region is not seen. A judge sees it.
    """

    def __init__(self, settings: ValiditySettings, judge: Answerer | None = None) -> None:
        if settings.judge is not None and judge is None:
            raise ValueError(
                f"validity.judge names {settings.judge!r} and no model was handed in; leave it out, or load it"
            )
        self.settings, self.judge = settings, judge

    def check(
        self,
        samples: Sequence[Sample],
        proposals: Sequence[Proposal],
        cleans: Sequence[Image.Image],
        editeds: Sequence[Image.Image],
    ) -> list[Verdict]:
        ssims = localized_ssim_batch(cleans, editeds, [sample.question.protected for sample in samples])
        verdicts = []
        for sample, proposal, clean, edited, ssim in zip(samples, proposals, cleans, editeds, ssims, strict=True):
            changed = [_changed_share(clean, edited, region) for region in proposal.regions]
            apart = all(region.overlap(box) == 0 for region in proposal.regions for box in sample.question.protected)
            shares = changed_shares(clean, edited, proposal.regions)
            done = 1.0 if min(changed) > 0.02 else 0.0
            verdicts.append(_verdict(self.settings, ssim, *shares, done, apart, sample.scene.objects, proposal.edits))
        if self.judge is None:
            return verdicts
        fair = [number for number, verdict in enumerate(verdicts) if verdict.valid]
        findings = photo_judge.find(
            self.judge,
            [samples[number] for number in fair],
            [proposals[number] for number in fair],
            [cleans[number] for number in fair],
            [editeds[number] for number in fair],
        )
        for number, finding in zip(fair, findings, strict=True):
            verdicts[number] = replace(
                verdicts[number],
                truth_kept=finding.truth,
                semantic=finding.objects,
                confidence=1.0 if finding.objects else 0.0,
            )
        return verdicts


def changed_shares(clean: Image.Image, edited: Image.Image, regions: Sequence[Box]) -> tuple[float, float]:
    """The share of all pixels that changed visibly, and of those of them that lie in no region."""
    changed = visibly_changed(clean, edited)
    whole = float(changed.mean())
    for region in regions:
        changed[_slices(region)] = False
    return whole, float(changed.mean())


def _verdict(
    settings: ValiditySettings,
    ssim: float,
    changed: float,
    outside: float,
    confidence: float,
    truth_kept: bool,
    objects: tuple[SceneObject, ...],
    edits: tuple[Edit, ...],
) -> Verdict:
    return Verdict(
        ssim=ssim,
        outside=outside,
        confidence=confidence,
        truth_kept=truth_kept,
        objects=objects,
        edits=edits,
        intact=ssim >= settings.min_ssim,
        confined=outside <= settings.max_outside,
        semantic=confidence >= settings.min_confidence,
        changed=changed,
        affordable=changed <= settings.max_changed,
    )


def _confidence(edit: Edit, found: ParsedObject | None) -> float:
    """How surely an edit was done. A removal leaves nothing; a replacement leaves something else."""
    if edit.kind == "remove":
        return 1.0 if found is None else 0.0
    if found is None or (edit.removed is not None and found.object.attributes == edit.removed.attributes):
        return 0.0
    return found.confidence


def visibly_changed(one: Image.Image, other: Image.Image) -> np.ndarray:
    """(H, W) of bool: where two images of one size differ to the eye."""
    before, after = (np.asarray(image.convert("RGB"), dtype=np.int16) for image in (one, other))
    return np.abs(after - before).max(-1) > VISIBLE


def _changed_share(clean: Image.Image, edited: Image.Image, region: Box) -> float:
    return float(visibly_changed(clean, edited)[_slices(region)].mean())


def region_mask(size: tuple[int, int], regions: Sequence[Box]) -> np.ndarray:
    """(H, W) of bool, true inside the regions; `size` is the image's, (width, height)."""
    mask = np.zeros((size[1], size[0]), dtype=bool)
    for region in regions:
        mask[_slices(region)] = True
    return mask


def _slices(box: Box) -> tuple[slice, slice]:
    return slice(int(box.y), round(box.bottom)), slice(int(box.x), round(box.right))
