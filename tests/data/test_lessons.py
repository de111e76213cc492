"""A round's lesson: without the held-back questions, with a share of the bank."""

from pathlib import Path

import pytest

from aot_core.contracts.bank import BankConfig
from aot_core.data.bank import held_back, key_of
from aot_core.data.dataset import load_image, read_samples
from aot_core.data.lessons import draw_lesson
from aot_core.store import LocalStore
from aot_core.worlds.images import DataError
from tests.data.curated import Made, put_bank, put_curated, write_curated

SHARE = 0.3


@pytest.fixture
def curated(tmp_path: Path) -> Path:
    write_curated(tmp_path / "curated", [Made(n) for n in range(20)])
    return tmp_path / "curated"


@pytest.fixture
def bank(tmp_path: Path) -> Path:
    """Of forty other scenes."""
    store = LocalStore(tmp_path / "store")
    fooling = put_curated(store, tmp_path / "fooling", [Made(n) for n in range(100, 140)])
    return store.fetch(put_bank(store, tmp_path / "bank", [fooling], BankConfig(suite=SHARE))[0])


def test_without_a_bank_and_with_nothing_held_back_it_is_what_was_curated(curated: Path, tmp_path: Path) -> None:
    lesson = draw_lesson(curated, None, 0.25, 0.0, 7, tmp_path / "scratch")
    assert (lesson.samples, lesson.folder) == (read_samples(curated), curated)
    assert (lesson.replayed, lesson.held_back) == (0, 0)
    assert not (tmp_path / "scratch").exists()


def test_what_the_suite_asks_is_in_no_lesson_and_the_bank_gives_its_share(
    curated: Path, bank: Path, tmp_path: Path
) -> None:
    lesson = draw_lesson(curated, bank, 0.25, SHARE, 7, tmp_path / "scratch")
    own = [sample for sample in read_samples(curated) if not held_back(sample, SHARE)]
    assert 0 < lesson.held_back == 20 - len(own)
    assert lesson.replayed == round(len(own) / 3), "a quarter of all"
    suite = {key_of(sample) for sample in read_samples(bank, "evaluate")}
    lessons = {key_of(sample) for sample in read_samples(bank, "train")}
    taught = [key_of(sample) for sample in lesson.samples]
    assert suite and not suite & set(taught) and len(set(taught) & lessons) == lesson.replayed
    assert sorted(set(taught) - lessons) == sorted(key_of(sample) for sample in own)
    originals = {sample.sample_id: (folder, sample) for folder in (curated, bank) for sample in read_samples(folder)}
    for sample in lesson.samples:
        folder, original = originals[sample.sample_id]
        for mine, its in ((sample.image, original.image), (sample.edited_image, original.edited_image)):
            assert load_image(lesson.folder, str(mine)).tobytes() == load_image(folder, str(its)).tobytes()

    again, other = (draw_lesson(curated, bank, 0.25, SHARE, seed, tmp_path / "scratch") for seed in (7, 8))
    assert again.samples == lesson.samples != other.samples


def test_a_bank_that_holds_less_gives_all_it_has(curated: Path, bank: Path, tmp_path: Path) -> None:
    lesson = draw_lesson(curated, bank, 0.9, SHARE, 7, tmp_path / "scratch")
    assert lesson.replayed == len(read_samples(bank, "train"))
    assert draw_lesson(curated, bank, 0.0, SHARE, 7, tmp_path / "scratch").replayed == 0


def test_what_cannot_be_a_lesson_is_refused_with_the_fix(curated: Path, bank: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"held_back 0.1 is less than the 0.3 .*set defender_round.held_back to 0.3"):
        draw_lesson(curated, bank, 0.25, 0.1, 7, tmp_path)
    (only,) = [n for n, sample in enumerate(read_samples(curated)) if held_back(sample, 0.9)][:1]
    write_curated(tmp_path / "few", [Made(only)])
    with pytest.raises(ValueError, match=r"keeps all 1 curated samples out of the lesson; lower it"):
        draw_lesson(tmp_path / "few", None, 0.25, 0.9, 7, tmp_path)
    with pytest.raises(DataError, match=r"is not a bank: bank.json is missing"):
        draw_lesson(curated, curated, 0.25, SHARE, 7, tmp_path)
    for sample in read_samples(bank, "train"):
        (bank / str(sample.edited_image)).unlink()
    with pytest.raises(DataError, match=r"is missing from .*run `bank` again"):
        draw_lesson(curated, bank, 0.25, SHARE, 7, tmp_path)
