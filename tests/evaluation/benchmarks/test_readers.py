"""What a file may look like, and what is wrong with one that is not in its format."""

from pathlib import Path

import pytest
from PIL import Image

from aot_core.evaluation.benchmarks.catalogue import BenchmarkError
from aot_core.evaluation.benchmarks.readers import read_benchmark
from aot_core.worlds.images import DataError
from tests.evaluation.benchmarks.conftest import picture, write_table, write_vstar
from tests.evaluation.benchmarks.test_scoring import CHOICES, Read

ROW = {"index": 7, "question": "Where?", **CHOICES, "answer": "A", "category": "c"}


def test_pictures_beside_the_file(tmp_path: Path, read: Read) -> None:
    (tmp_path / "pictures").mkdir()
    Image.new("RGB", (5, 4)).save(tmp_path / "pictures" / "7.png")
    (item,) = read("mmstar", "MMStar.tsv", [{**ROW, "image_path": "pictures/7.png"}])
    assert item.open()[0].size == (5, 4)


def test_a_row_may_refer_to_another_ones_picture(read: Read) -> None:
    first, second = read("mmstar", "MMStar.tsv", [{**ROW, "image": picture(3)}, {**ROW, "index": 8, "image": "7"}])
    assert first.image_sha256 == second.image_sha256 and first.key != second.key


def test_texts_with_tabs_quotes_and_lines(read: Read) -> None:
    text = 'What does "the\tsign"\nsay?'
    (item,) = read("mmstar", "MMStar.tsv", [{**ROW, "question": text, "image": picture(1)}])
    assert item.question == text


def test_the_key_tells_pictures_and_options_apart(read: Read) -> None:
    def key(**changes: object) -> str:
        return read("mmstar", "MMStar.tsv", [{**ROW, "image": picture(1), **changes}])[0].key

    assert key() == key(category="other")
    assert len({key(), key(image=picture(2)), key(A="right", B="left"), key(index=9)}) == 4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"answer": "E"}, "answer 'E' is not one of its options A, B, C, D"),
        ({"B": ""}, "A, B, ... without gaps"),
        ({"image": "not base64!" * 9}, "is not base64"),
        ({"image": ""}, "has no picture"),
        ({"image": "99"}, "refers to a row that does not precede"),
        ({"image": "['" + "A" * 80}, "list of pictures cannot be read"),
    ],
)
def test_a_bad_row_is_named(read: Read, change: dict[str, object], message: str) -> None:
    with pytest.raises(BenchmarkError, match=message) as raised:
        read("mmstar", "MMStar.tsv", [{**ROW, "image": picture(1), **change}])
    assert "line 2 (index 7)" in str(raised.value)


def test_a_path_that_climbs_out_is_refused(read: Read) -> None:
    with pytest.raises(DataError, match="does not lie inside"):
        read("mmstar", "MMStar.tsv", [{**ROW, "image_path": "../../secret.png"}])
    with pytest.raises(BenchmarkError, match="is not beside the file"):
        read("mmstar", "MMStar.tsv", [{**ROW, "image_path": "gone.png"}])


def test_a_file_that_is_not_the_published_one(tmp_path: Path, read: Read) -> None:
    with pytest.raises(BenchmarkError, match=r"holds no POPE\.tsv"):
        read_benchmark("pope", tmp_path, tmp_path / "cache")
    with pytest.raises(BenchmarkError, match="'hope' is not known"):
        read_benchmark("hope", tmp_path, tmp_path / "cache")
    with pytest.raises(BenchmarkError, match="has no column category"):
        read("pope", "POPE.tsv", [{"index": 1, "question": "?", "answer": "Yes", "image": picture(1)}])
    with pytest.raises(BenchmarkError, match="appears twice"):
        read("mmstar", "MMStar.tsv", [{**ROW, "image": picture(1)}] * 2)
    with pytest.raises(BenchmarkError, match="neither Yes nor No"):
        read(
            "pope", "POPE.tsv", [{"index": 1, "question": "?", "answer": "Maybe", "category": "c", "image": picture(1)}]
        )
    write_table(tmp_path / "MMStar.tsv", [{**ROW, "image": picture(1)}])
    whole = (tmp_path / "MMStar.tsv").read_text()
    (tmp_path / "MMStar.tsv").write_text(whole[: whole.index("below") - 3])
    with pytest.raises(BenchmarkError, match="the number of columns differs"):
        read_benchmark("mmstar", tmp_path, tmp_path / "cache")


def test_a_vstar_folder_that_is_not_whole(tmp_path: Path) -> None:
    write_vstar(tmp_path / "vstar_bench")
    (tmp_path / "vstar_bench" / "direct_attributes" / "sa_1.jpg").unlink()
    with pytest.raises(BenchmarkError, match=r"line 2: picture 'direct_attributes/sa_1.jpg' is not in"):
        read_benchmark("vstar", tmp_path, tmp_path / "cache")
    (tmp_path / "vstar_bench" / "test_questions.jsonl").write_text('{"text": "cut o')
    with pytest.raises(BenchmarkError, match="not a VStar question"):
        read_benchmark("vstar", tmp_path, tmp_path / "cache")
