"""The guard lets good data pass, names what is bad, and says when it could not look."""

import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from aot_core.contracts.prepare_data import EffectivenessSettings, GuardSettings, PrepareDataConfig, SplitSizes
from aot_core.contracts.scene import Question, Sample
from aot_core.data import checks, dataset, facts, guard
from aot_core.data.build import BuildJob, BuildSummary, build_dataset, notes_of
from aot_core.data.checks import checks_frame, letter_probabilities
from aot_core.data.facts import Note
from aot_core.data.guard import DataGuardError, GuardBrokenError, guard_dataset
from aot_core.worlds.images import DataError

CONFIG = PrepareDataConfig(
    splits=SplitSizes(warm_start=12, train=6, evaluate=4), effectiveness=EffectivenessSettings(enabled=False)
)


@pytest.fixture(scope="module")
def good(
    build: Callable[..., tuple[list[Sample], BuildSummary]], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[Sample]]:
    folder = tmp_path_factory.mktemp("good")
    return folder, build(CONFIG, folder)[0]


def rewritten(folder: Path, samples: list[Sample], place: int, **changes: object) -> list[Sample]:
    """The data set with one sample changed, written again: its hashes hold, its content is bad."""
    changed = [*samples]
    changed[place] = samples[place].model_copy(update=changes)
    rewrite(folder, changed)
    return changed


def rewrite(folder: Path, samples: list[Sample]) -> None:
    """The same tables, with these samples: every split's own, their hashes as of now."""
    for split in {sample.split for sample in samples}:
        own = [sample for sample in samples if sample.split == split]
        hashes = {name: dataset.file_sha256(folder / name) for sample in own for name in dataset.images_of(sample)}
        base = f"{dataset.DATA}/{split}"
        rows = [dataset.row_of(sample, hashes, base) for sample in own]
        pq.write_table(pa.Table.from_pylist(rows, schema=dataset.SCHEMA), folder / base / dataset.TABLE)
    dataset.write_manifest(folder)


def test_good_data_passes_and_leaves_a_report(good: tuple[Path, list[Sample]], tmp_path: Path) -> None:
    verdicts = guard_dataset(good[0], 0.85, tmp_path)
    assert all(verdict.success for verdict in verdicts)
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["passed"] == len(report["expectations"]) == len(verdicts) > 20
    page = (tmp_path / "report.html").read_text()
    assert f"{len(verdicts)} of {len(verdicts)} expectations hold" in page and "no source stands in two splits" in page


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
        "picture": {},
        "family": {"edits": (edit.model_copy(update={"family": "unseen"}),)},
        "outside": {"edits": (edit.model_copy(update={"region": edit.region.shifted(60, 0)}),)},
    }[what]
    own_picture = (folder / sample.image).read_bytes()
    if what == "picture":
        (folder / sample.image).unlink()
        (folder / sample.image).write_bytes((folder / other.image).read_bytes())
    try:
        rewritten(folder, samples, at, **changes)
        with pytest.raises(DataGuardError, match=column) as caught:
            guard_dataset(folder, 0.85, tmp_path)
        assert sample.sample_id in str(caught.value) or what in ("source", "picture")
        assert not all(e["success"] for e in json.loads((tmp_path / "report.json").read_text())["expectations"])
    finally:
        (folder / sample.image).write_bytes(own_picture)
        rewrite(folder, samples)


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


def questions(letters: str, options: int) -> pd.DataFrame:
    """One question a letter."""
    rows = [
        {"split": "train", "image_sha256": str(n), "question": "?", "options": options, "answer": letter}
        for n, letter in enumerate(letters)
    ]
    return pd.DataFrame(rows)


def test_letter_balance_is_an_exact_binomial_test() -> None:
    # 20 of 20 with two options: 2 * 2^-20 on both sides, times two letters.
    assert letter_probabilities(questions("A" * 20, 2))[0] == pytest.approx(2 * 2 / 2**20)
    assert letter_probabilities(questions("AB" * 10, 2)) == [1.0] * 20
    # A letter that is never right is seen too: 0.75^60 of D, and the like.
    assert letter_probabilities(questions("ABC" * 20, 4))[0] < 1e-6 < letter_probabilities(questions("ABCD" * 15, 4))[0]
    # The versions of one question count once.
    repeated = pd.concat([questions("AB", 2)] * 50)
    assert letter_probabilities(repeated) == [1.0] * 100


def test_letters_that_are_right_too_often_are_found(good: tuple[Path, list[Sample]], tmp_path: Path) -> None:
    settings = GuardSettings(letter_p=0.999)
    with pytest.raises(DataGuardError, match="letter_p"):
        guard_dataset(good[0], 0.85, tmp_path, settings)


def test_near_duplicates_are_looked_for_in_photographs_alone(good: tuple[Path, list[Sample]]) -> None:
    assert checks_frame(good[0])["near_duplicate"].isna().all()
    found = checks_frame(good[0], near_duplicate_bits=60)["near_duplicate"].dropna()
    assert len(found) and "bits" in found.iloc[0], "drawn scenes are alike by such a loose measure"


def test_rows_are_not_believed(good: tuple[Path, list[Sample]], tmp_path: Path) -> None:
    """A record that cannot be read, and a column that says something else, are findings and no crash."""
    folder, samples = good
    table = folder / "data/train" / dataset.TABLE
    rows = pq.read_table(table).to_pylist()
    rows[0]["record"], rows[1]["answer"], rows[2]["file_name"] = "{}", "H", "../../../etc/passwd"
    try:
        pq.write_table(pa.Table.from_pylist(rows, schema=dataset.SCHEMA), table)
        dataset.write_manifest(folder)
        with pytest.raises(DataGuardError, match="answer_is_an_option"):
            guard_dataset(folder, 0.85, tmp_path)
        report = json.loads((tmp_path / "report.json").read_text())
        named = {v["column"]: v["rows"] for v in report["expectations"]}
        ids = [row["sample_id"] for row in rows[:3]]
        assert named["record_agrees"] == ids
        assert named["answer_is_an_option"] == ids[1:2] and named["hashes_hold"] == ids[2:]
    finally:
        rewrite(folder, samples)


def test_the_share_of_effective_pairs_is_looked_at_where_there_is_one() -> None:
    suite = guard.data_expectations(0.85, GuardSettings(min_effective=0.5), judged=True)
    (share,) = [e for e in suite if "mean" in e.expectation_type]
    frame = pd.DataFrame({"sample_id": list("abcd"), "effective": [1.0, 0.0, 0.0, None]})
    (verdict,) = guard.validate(frame, [share])
    assert not verdict.success and verdict.detail == "observed 0.3333"
    assert not any("mean" in e.expectation_type for e in guard.data_expectations(0.85, GuardSettings()))


def test_data_docs_are_a_site_of_their_own(good: tuple[Path, list[Sample]], tmp_path: Path) -> None:
    guard_dataset(good[0], 0.85, tmp_path / "report", docs=tmp_path / "docs")
    assert "prepared_data" in (tmp_path / "docs/index.html").read_text()
    (page,) = (tmp_path / "docs/validations").rglob("*.html")
    assert "truth_when_edited" in page.read_text()


def test_an_expectation_that_raises_is_no_verdict_on_the_data(good: tuple[Path, list[Sample]]) -> None:
    frame = checks_frame(good[0]).drop(columns="overlap")
    verdicts = guard.validate(frame, guard.data_expectations(0.85, GuardSettings()))
    broken = [verdict for verdict in verdicts if verdict.raised]
    assert {verdict.column for verdict in broken} == {"overlap"}
    with pytest.raises(GuardBrokenError, match=r"overlap.*does not exist"):
        guard.raise_for(verdicts)


@pytest.fixture
def noted(tmp_path: Path) -> tuple[Path, dict[str, Note]]:
    """A data set of several shards, and what their makers noted."""
    config = CONFIG.model_copy(update={"shard_size": 4})
    job = BuildJob(config, None, tmp_path / "work")
    made = build_dataset(job, tmp_path / "data")
    notes = notes_of(job, made)
    assert len(notes) == 3 + 2 + 1 and sum(note.rows for note in notes.values()) == 12 + 6 + 16
    return tmp_path / "data", notes


def test_notes_tell_what_the_rows_tell(noted: tuple[Path, dict[str, Note]], monkeypatch: pytest.MonkeyPatch) -> None:
    folder, notes = noted
    looked_at = checks_frame(folder)
    monkeypatch.setattr(checks, "table_facts", refuse)
    pd.testing.assert_frame_equal(checks_frame(folder, notes=notes), looked_at)
    with pytest.raises(AssertionError, match="looked at anew"):
        checks_frame(folder)


def refuse(rows: pa.Table, base: str) -> pa.Table:
    raise AssertionError(f"{len(rows)} rows of {base} are looked at anew")


@pytest.mark.parametrize("what", ["row", "order", "note", "no note", "code"])
def test_a_note_about_anything_else_is_not_used(
    noted: tuple[Path, dict[str, Note]], monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    folder, notes = noted
    table = folder / "data/train" / dataset.TABLE
    with pq.ParquetFile(table) as file:
        groups = [file.read_row_group(number) for number in range(file.num_row_groups)]
    if what == "row":
        rows = groups[0].to_pylist()
        rows[1]["answer"] = "H"
        groups[0] = pa.Table.from_pylist(rows, schema=dataset.SCHEMA)
    elif what == "order":
        groups[0] = groups[0].take([1, 0, *range(2, len(groups[0]))])
    elif what == "note":
        path = next(note.path for note in notes.values() if "train-00000" in str(note.path))
        path.write_bytes(path.read_bytes() + b"\0")
    elif what == "no note":
        next(note.path for note in notes.values() if "train-00000" in str(note.path)).unlink()
    else:
        monkeypatch.setattr(facts, "_code", lambda: "of another release")
    with pq.ParquetWriter(table, dataset.SCHEMA) as writer:
        for group in groups:
            writer.write_table(group)
    dataset.write_manifest(folder)
    expected = checks_frame(folder)
    anew: list[int] = []

    def counted(rows: pa.Table, base: str) -> pa.Table:
        anew.append(len(rows))
        return facts.table_facts(rows, base)

    monkeypatch.setattr(checks, "table_facts", counted)
    found = checks_frame(folder, notes=notes)
    pd.testing.assert_frame_equal(found, expected)
    assert anew == ([4] * 3 + [4, 2] + [16] if what == "code" else [4])
    assert (~found["truth_when_clean"]).sum() == 0 and (~found["record_agrees"]).sum() == (what == "row")


def test_files_are_looked_at_whatever_was_noted(noted: tuple[Path, dict[str, Note]], tmp_path: Path) -> None:
    """An image that changed after its shard was made, and a table that changed after it was joined."""
    folder, notes = noted
    samples = dataset.read_samples(folder, "train")
    image = folder / samples[5].image
    whole = image.read_bytes()
    image.unlink()
    image.write_bytes(whole[:-1] + b"\0")
    with pytest.raises(DataGuardError, match=rf"hashes_hold.*: 1 of 34 rows.*{samples[5].sample_id}"):
        guard_dataset(folder, 0.85, tmp_path / "guard", notes=notes)
    image.write_bytes(whole)
    table = folder / "data/train" / dataset.TABLE
    pq.write_table(pq.read_table(table), table)
    with pytest.raises(DataGuardError, match=r"hashes_hold.*: 6 of 34 rows"):
        guard_dataset(folder, 0.85, tmp_path / "guard", notes=notes)


def test_a_table_of_other_columns_is_refused(noted: tuple[Path, dict[str, Note]]) -> None:
    folder, _ = noted
    table = folder / "data/train" / dataset.TABLE
    pq.write_table(pq.read_table(table).drop_columns(["record"]), table)
    with pytest.raises(DataError, match=r"train/metadata\.parquet cannot be read as a data set's table"):
        checks_frame(folder)
    table.write_bytes(b"no table")
    with pytest.raises(DataError, match="make the data set again"):
        checks_frame(folder)
