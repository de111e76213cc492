"""What a Defender's round is taught: the curated edits without the held-back questions, and a share of the bank."""

import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from aot_core.contracts.scene import Sample
from aot_core.data.bank import bank_config, held_back
from aot_core.data.dataset import images_of, read_samples
from aot_core.worlds.images import RowError, safe_path

_BANK = "bank"


@dataclass(frozen=True)
class Lesson:
    """Samples, and the folder that their pictures are in."""

    samples: list[Sample]
    folder: Path
    replayed: int = 0
    """Of the samples, those from the bank."""
    held_back: int = 0
    """Curated samples that were left out."""


def draw_lesson(
    curated: Path, bank: Path | None, replay_share: float, held_back_share: float, seed: int, scratch: Path
) -> Lesson:
    """The lesson of a round. Without a bank: the curated samples that are not held back, in order.

    Args:
        curated: the data set that `curate` wrote.
        bank: what `bank` wrote; None: nothing is replayed.
        replay_share: share of the edited scenes that is drawn from the bank; all that it holds where it holds less.
        held_back_share: share of the questions that is left out, 0..1.
        scratch: where the pictures of both are brought together.

    Raises ValueError where all is held back or less is held back than the bank's suite asks about, and DataError where
    the folder is no bank or a picture is missing.
    """
    found = read_samples(curated)
    samples = [sample for sample in found if not held_back(sample, held_back_share)]
    left_out = len(found) - len(samples)
    if found and not samples:
        raise ValueError(
            f"defender_round.held_back {held_back_share:g} keeps all {len(found)} curated samples out of the lesson; "
            "lower it (and bank.suite), or curate more scenes"
        )
    if bank is None:
        return Lesson(samples, curated, held_back=left_out)
    suite = bank_config(bank).suite
    if held_back_share < suite:
        raise ValueError(
            f"defender_round.held_back {held_back_share:g} is less than the {suite:g} that the bank's regression suite "
            f"asks about, so lessons would hold its questions; set defender_round.held_back to {suite:g}"
        )
    rng = np.random.default_rng([seed, 2])
    lessons = [sample for sample in read_samples(bank, "train") if not held_back(sample, held_back_share)]
    edited = sum(sample.edited_image is not None for sample in samples)
    wanted = min(round(edited * replay_share / (1 - replay_share)), len(lessons))
    replayed = [lessons[int(i)] for i in rng.choice(len(lessons), size=wanted, replace=False)] if wanted else []
    if not replayed:
        return Lesson(samples, curated, held_back=left_out)
    scratch.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="lesson-", dir=scratch))  # each process of a stage makes its own
    for sample in samples:
        _bring(images_of(sample), curated, folder)
    for sample in replayed:
        _bring(images_of(sample), bank, folder / _BANK)
    mixed = [*samples, *(_moved(sample) for sample in replayed)]
    # In a new order: clean scenes are taken from the front, and both parts are to give theirs.
    return Lesson([mixed[int(i)] for i in rng.permutation(len(mixed))], folder, len(replayed), left_out)


def _bring(pictures: Sequence[str], source: Path, folder: Path) -> None:
    """Have pictures of a data set in another folder, too: the same file where that goes, else a copy.

    Raises RowError for one that is missing.
    """
    for relative in pictures:
        path, target = safe_path(source, relative), safe_path(folder, relative)
        if target.exists():
            continue
        if not path.is_file():
            raise RowError(
                "missing", f"image {relative!r} is missing from {source}; run `bank` again, it leaves it out"
            )
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(path, target)
        except OSError:
            shutil.copyfile(path, target)


def _moved(sample: Sample) -> Sample:
    """A sample of the bank as it is named in the lesson's folder."""
    return sample.model_copy(
        update={"image": f"{_BANK}/{sample.image}", "edited_image": f"{_BANK}/{sample.edited_image}"}
    )
