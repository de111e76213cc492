"""The hard stop on what was seen in training, on data sets as the stages write them."""

from pathlib import Path

import pytest

from aot_core.contracts.bank import BankConfig
from aot_core.data.bank import held_back
from aot_core.data.dataset import read_samples, write_dataset
from aot_core.evaluation.stops import seen_in_training
from aot_core.store import LocalStore
from tests.data.curated import Made, put_bank, put_curated, write_curated

SHARE = 0.3


def write_data(folder: Path, train: range, evaluate: range) -> None:
    """As `prepare_data` writes it, the pairs apart."""
    write_curated(folder, [Made(n) for n in (*train, *evaluate)])
    splits = ["train"] * len(train) + ["evaluate"] * len(evaluate)
    write_dataset(
        folder,
        [
            sample.model_copy(update={"split": split, "edited_image": None})
            for sample, split in zip(read_samples(folder), splits, strict=True)
        ],
    )


@pytest.fixture
def data(tmp_path: Path) -> Path:
    write_data(tmp_path / "data", range(100, 104), range(200, 205))
    return tmp_path / "data"


def test_test_pictures_among_the_lessons_stop(data: Path, tmp_path: Path) -> None:
    write_curated(tmp_path / "sound", [Made(n) for n in range(100, 104)])
    write_curated(tmp_path / "leaking", [Made(100), Made(200)])
    # Four clean pictures, each with an edit; the clean ones stand in the data set, too.
    assert seen_in_training(data, [tmp_path / "sound"]).told == "0 of 5 test pictures stand among 8 training pictures"
    stop = seen_in_training(data, [tmp_path / "sound", tmp_path / "leaking"])
    assert stop.stopped and stop.told == "1 of 5 test pictures stand among 10 training pictures"


def test_the_regression_suite_s_questions_among_the_lessons_stop(data: Path, tmp_path: Path) -> None:
    """Other edits of a suite's scene teach its question, whatever their bytes are, unless they are held back."""
    store = LocalStore(tmp_path / "store")
    scenes = range(12)
    curated = put_curated(store, tmp_path / "curated", [Made(n) for n in scenes])
    bank = store.fetch(put_bank(store, tmp_path / "bank", [curated], BankConfig(suite=SHARE))[0])
    suite = len(read_samples(bank, "evaluate"))
    write_curated(tmp_path / "lesson", [Made(n, edit=3) for n in scenes])
    assert suite == sum(held_back(sample, SHARE) for sample in read_samples(tmp_path / "lesson")) > 0
    held = seen_in_training(data, [tmp_path / "lesson"], bank, SHARE)
    assert not held.stopped and held.told.startswith(f"0 of {5 + suite} test pictures")
    taught = seen_in_training(data, [tmp_path / "lesson"], bank)
    assert taught.stopped
    assert taught.told.endswith(f"{suite} of {suite} questions of the regression suite stand among the lessons'")


def test_what_may_have_been_replayed_counts_as_trained_on(tmp_path: Path) -> None:
    """An edition whose test pictures were an earlier one's lessons."""
    store = LocalStore(tmp_path / "store")
    curated = put_curated(store, tmp_path / "curated", [Made(n) for n in range(12)])
    bank = store.fetch(put_bank(store, tmp_path / "bank", [curated], BankConfig(suite=SHARE))[0])
    lessons = len(read_samples(bank, "train"))
    write_data(tmp_path / "data", range(100, 102), range(12))
    write_curated(tmp_path / "lesson", [Made(100)])
    stop = seen_in_training(tmp_path / "data", [tmp_path / "lesson"], bank, SHARE)
    assert stop.stopped and stop.told.startswith(f"{lessons} of ")
