"""Is an edit fair? The question's objects stand, nothing else changed, what was painted is an object, the
truth holds.

Samples, proposals and pixels flow in, verdicts out: every figure by itself, so that a funnel can be counted
and a reward explained. Truth is derived again from what the edited image shows: an editor's first cheat is to
answer the question "is there a red ring?" by painting one. How an edited image is read each world says: a parser reads
drawn scenes (`shapes.check`); about photographs an MLLM may be asked (`photographs.check`).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from aot_core.contracts.attack import ValiditySettings
from aot_core.contracts.scene import Box, Edit, SceneObject

VISIBLE = 16
"""A pixel has changed visibly when a channel differs by more than this (grey values)."""


@dataclass(frozen=True)
class Verdict:
    """What was found on one edited image. Everything is measured, whether or not an earlier check failed;
    but a judge is only asked about edits that pass the other checks."""

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


def changed_shares(clean: Image.Image, edited: Image.Image, regions: Sequence[Box]) -> tuple[float, float]:
    """The share of all pixels that changed visibly, and of those of them that lie in no region."""
    changed = visibly_changed(clean, edited)
    whole = float(changed.mean())
    for region in regions:
        changed[slices(region)] = False
    return whole, float(changed.mean())


def verdict_of(
    settings: ValiditySettings,
    ssim: float,
    changed: float,
    outside: float,
    confidence: float,
    truth_kept: bool,
    objects: tuple[SceneObject, ...],
    edits: tuple[Edit, ...],
) -> Verdict:
    """What was found, held against the settings; arguments as the fields of `Verdict`."""
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


def visibly_changed(one: Image.Image, other: Image.Image) -> np.ndarray:
    """(H, W) of bool: where two images of one size differ to the eye."""
    before, after = (np.asarray(image.convert("RGB"), dtype=np.int16) for image in (one, other))
    return np.abs(after - before).max(-1) > VISIBLE


def region_mask(size: tuple[int, int], regions: Sequence[Box]) -> np.ndarray:
    """(H, W) of bool, true inside the regions; `size` is the image's, (width, height)."""
    mask = np.zeros((size[1], size[0]), dtype=bool)
    for region in regions:
        mask[slices(region)] = True
    return mask


def slices(box: Box) -> tuple[slice, slice]:
    """The rows and columns of a box, in whole pixels."""
    return slice(int(box.y), round(box.bottom)), slice(int(box.x), round(box.right))
