"""The guard lets good data pass, names what is bad, and says when it could not look."""

import json
from pathlib import Path

import pytest

from aot_core.contracts.prepare_data import EffectivenessSettings, PrepareDataConfig, SplitSizes
from aot_core.contracts.scene import Question, Sample
from aot_core.data import dataset, guard
from aot_core.data.domains import open_source
from aot_core.data.guard import DataGuardError, GuardBrokenError, guard_dataset
from aot_core.data.pipeline import Pipeline

CONFIG = PrepareDataConfig(
    splits=SplitSizes(warm_start=12, train=6, evaluate=4), effectiveness=EffectivenessSettings(enabled=False)
)


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Sample]]:
    folder = tmp_path_factory.mktemp("good")
    return folder, Pipeline(CONFIG, open_source(CONFIG, None)).write(folder)


def rewritten(folder: Path, samples: list[Sample], place: int, **changes: object) -> list[Sample]:
    """The data set with one sample changed, written again: its hashes hold, its content is bad."""
    changed = [*samples]
    changed[place] = samples[place].model_copy(update=changes)
    dataset.write_dataset(folder, changed)
    return changed


def restore(folder: Path, samples: list[Sample]) -> None:
    dataset.write_dataset(folder, samples)


def test_good_data_passes_and_leaves_a_report(good: tuple[Path, list[Sample]], tmp_path: Path) -> None:
    verdicts = guard_dataset(good[0], 0.85, tmp_path)
    assert all(verdict.success for verdict in verdicts)
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["passed"] == len(report["expectations"]) == len(verdicts) > 20
    page = (tmp_path / "report.html").read_text()
    assert "22 of 22 expectations hold" in page and "no source stands in two splits" in page


def moved_answer(sample: Sample) -> Question:
    question = sample.question
    other = "A" if question.answer != "A" else "B"
    return question.model_copy(update={"answer": other})


@pytest.mark.parametrize(
    ("what", "column"),
    [
        ("answer", "truth_when_clean"),
        ("overlap", "overlap"),
        ("ssim", "ssim"),
        ("source", "splits_of_source"),
        ("picture", "splits_of_pixels"),
        ("family", "unseen_only_evaluated"),
        ("outside", "boxes_inside"),
    ],
)
def test_bad_data_is_named(good: tuple[Path, list[Sample]], tmp_path: Path, what: str, column: str) -> None:
    folder, samples = good
    at = next(i for i, s in enumerate(samples) if s.edits and s.question.protected)
    sample, other = samples[at], next(s for s in samples if s.split == "train")
    edit = sample.edits[0]
    changes: dict[str, object] = {
        "answer": {"question": moved_answer(sample)},
        "overlap": {"edits": (edit.model_copy(update={"region": sample.question.protected[0]}),)},
        "ssim": {"ssim": 0.2},
        "source": {"scene": sample.scene.model_copy(update={"source_id": other.scene.source_id})},
        "picture": {"image": other.image},
        "family": {"edits": (edit.model_copy(update={"family": "unseen"}),)},
        "outside": {"edits": (edit.model_copy(update={"region": edit.region.shifted(60, 0)}),)},
    }[what]
    try:
        rewritten(folder, samples, at, **changes)
        with pytest.raises(DataGuardError, match=column) as caught:
            guard_dataset(folder, 0.85, tmp_path)
        assert sample.sample_id in str(caught.value) or what in ("source", "picture")
        assert not all(e["success"] for e in json.loads((tmp_path / "report.json").read_text())["expectations"])
    finally:
        restore(folder, samples)


def test_a_changed_image_is_found(good: tuple[Path, list[Sample]], tmp_path: Path) -> None:
    folder, samples = good
    path = folder / samples[3].image
    whole = path.read_bytes()
    try:
        path.write_bytes(whole + b"\0")
        with pytest.raises(DataGuardError, match=rf"hashes_hold.*{samples[3].sample_id}"):
            guard_dataset(folder, 0.85, tmp_path)
    finally:
        path.write_bytes(whole)


def test_letters_that_are_right_too_often_are_found(good: tuple[Path, list[Sample]]) -> None:
    errors = guard.letter_errors(good[1])
    assert max(error for letters in errors.values() for error in letters.values()) < guard.LETTER_SIGMAS
    always_a = []
    for number in range(40):
        sample = good[1][number % len(good[1])]
        question = sample.question
        order = (question.answer_text, *(o for o in question.options if o != question.answer_text))
        always_a.append(
            sample.model_copy(
                update={
                    "image": f"images/{number}.png",
                    "question": question.model_copy(update={"options": order, "answer": "A"}),
                }
            )
        )
    errors = guard.letter_errors(always_a)
    assert max(letters["A"] for letters in errors.values()) > guard.LETTER_SIGMAS / 2


def test_an_expectation_that_raises_is_no_verdict_on_the_data(good: tuple[Path, list[Sample]]) -> None:
    frame = guard.checks_frame(*good).drop(columns="overlap")
    verdicts = guard.validate(frame, guard.data_expectations(0.85))
    (broken,) = [verdict for verdict in verdicts if verdict.raised]
    assert broken.column == "overlap" and "does not exist" in broken.raised
    with pytest.raises(GuardBrokenError, match=r"overlap.*does not exist"):
        guard.raise_for(verdicts)
