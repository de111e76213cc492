"""The regression suite as a condition: what fooled earlier Defenders and was never trained on."""

from functools import partial
from pathlib import Path

from PIL.Image import Image

from aot_core.contracts.evaluate import REGRESSION_SUITE
from aot_core.contracts.scene import Sample
from aot_core.data.bank import bank_config, key_of
from aot_core.data.dataset import load_image, read_samples
from aot_core.evaluation.items import Condition, edit_kind


def suite_conditions(bank: Path) -> list[Condition]:
    """All edits of the bank's suite as one condition; none where the suite is empty.

    Two edits of one scene are two questions here: each edit counts as a scene of its own, told by what it is made of,
    so that its item_id is the same in every edition. Raises DataError where the folder is no bank.
    """
    bank_config(bank)
    samples = [_own_scene(sample) for sample in read_samples(bank, "evaluate")]
    if not samples:
        return []
    told = {sample.sample_id: sample.instruction for sample in samples}
    kinds = {sample.sample_id: edit_kind(sample.edits) for sample in samples}
    return [Condition(REGRESSION_SUITE, samples, partial(_open, bank), told, kinds)]


def suite_questions(bank: Path) -> dict[str, str]:
    """sample_id to question (source picture and text), of the edits of a bank's suite. Raises DataError as above."""
    bank_config(bank)
    return {sample.sample_id: key_of(sample) for sample in read_samples(bank, "evaluate")}


def _own_scene(sample: Sample) -> Sample:
    return sample.model_copy(update={"scene": sample.scene.model_copy(update={"scene_id": sample.sample_id})})


def _open(folder: Path, sample: Sample) -> Image:
    return load_image(folder, str(sample.edited_image))
