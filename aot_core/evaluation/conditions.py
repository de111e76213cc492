"""The conditions that a data set holds by itself: its clean scenes, and its procedural distractors by family."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import get_args

from PIL.Image import Image

from aot_core.contracts.evaluate import CLEAN
from aot_core.contracts.scene import DistractorFamily, Sample
from aot_core.data.dataset import load_image
from aot_core.evaluation.items import Condition, choose, clean_samples, edit_kind, family_samples


def clean_condition(folder: Path, samples: Sequence[Sample], limit: int | None, seed: int) -> Condition:
    """The questions about clean scenes, at most `limit` of them.

    Args:
        folder: the data set that the samples are from.
    """
    return Condition(CLEAN, choose(clean_samples(samples), limit, seed), partial(_open_clean, folder))


def family_conditions(folder: Path, samples: Sequence[Sample], limit: int | None, seed: int) -> list[Condition]:
    """A condition for every distractor family that the samples hold; see `clean_condition`."""
    conditions: list[Condition] = []
    for family in get_args(DistractorFamily):
        pairs = choose(family_samples(samples, family), limit, seed)
        if pairs:
            told = {sample.sample_id: sample.instruction for sample in pairs}
            kinds = {sample.sample_id: edit_kind(sample.edits) for sample in pairs}
            conditions.append(Condition(family, pairs, partial(_open_edited, folder), told, kinds))
    return conditions


def _open_clean(folder: Path, sample: Sample) -> Image:
    return load_image(folder, sample.image)


def _open_edited(folder: Path, sample: Sample) -> Image:
    return load_image(folder, str(sample.edited_image))
