"""Are edits of photographs fair? By geometry and pixels, and by a judge's word where there is a judge."""

from collections.abc import Sequence
from dataclasses import replace

from PIL import Image

from aot_core.contracts.attack import ValiditySettings
from aot_core.contracts.protocols import Answerer
from aot_core.contracts.scene import Box, Sample
from aot_core.worlds.photographs.inspection import inspect_edits
from aot_core.worlds.proposals import Proposal
from aot_core.worlds.similarity import localized_ssim_batch
from aot_core.worlds.validity import Verdict, changed_shares, slices, verdict_of, visibly_changed


class PhotoChecker:
    """Photographs: no parser reads them.

    Without a judge the truth holds by construction, as no region touches a protected box, and an edit is done where its
    region changed: an editor that paints the answer, or a texture, in its region is not seen. A judge sees it.
    """

    def __init__(self, settings: ValiditySettings, judge: Answerer | None = None) -> None:
        if settings.judge is not None and judge is None:
            raise ValueError(
                f"validity.judge names {settings.judge!r} but no model was given; leave it out, or load it"
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
            verdicts.append(verdict_of(self.settings, ssim, *shares, done, apart, sample.scene.objects, proposal.edits))
        if self.judge is None:
            return verdicts
        fair = [number for number, verdict in enumerate(verdicts) if verdict.valid]
        inspections = inspect_edits(
            self.judge,
            [samples[number] for number in fair],
            [proposals[number] for number in fair],
            [cleans[number] for number in fair],
            [editeds[number] for number in fair],
        )
        for number, inspection in zip(fair, inspections, strict=True):
            verdicts[number] = replace(
                verdicts[number],
                truth_kept=inspection.truth,
                semantic=inspection.objects,
                confidence=1.0 if inspection.objects else 0.0,
            )
        return verdicts


def _changed_share(clean: Image.Image, edited: Image.Image, region: Box) -> float:
    return float(visibly_changed(clean, edited)[slices(region)].mean())
