"""Every benchmark, from a file in its true format to scores computed by hand."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from aot_core.evaluation.benchmarks.catalogue import BenchmarkError
from aot_core.evaluation.benchmarks.items import BenchmarkItem
from aot_core.evaluation.benchmarks.readers import read_benchmark
from aot_core.evaluation.benchmarks.scoring import score
from tests.evaluation.benchmarks.conftest import picture, write_vstar

Read = Callable[[str, str, Sequence[dict[str, object]]], list[BenchmarkItem]]
CHOICES = {"A": "left", "B": "right", "C": "above", "D": "below"}


def answered(items: list[BenchmarkItem], *askings: str) -> dict[str, list[str | None]]:
    """Answers by key; each asking is a text with a letter a question, `.` where none was given, Y and N for yes, no."""
    said = {".": None, "Y": "Yes", "N": "No"}
    letters = [[said.get(letter, letter) for letter in asking] for asking in askings]
    return {item.key: [asking[i] for asking in letters] for i, item in enumerate(items)}


def test_vstar_by_category(tmp_path: Path) -> None:
    write_vstar(tmp_path / "vstar_bench")
    items = read_benchmark("vstar", tmp_path, tmp_path / "cache")
    assert [item.answer for item in items] == ["A", "C", "B"] and items[2].letters == "AB"
    assert items[0].prompt == (
        "What is the material of the glove?\nA. rubber\nB. cotton\nC. kevlar\nD. leather\nAnswer with \\boxed{X}."
    )
    figures = score(items, answered(items, "ACA", "ABA", "ACB"))
    # Asked three times: 2, 1 and 3 of three right; the first alone right each time.
    assert figures["single/accuracy"] == pytest.approx((2 + 1 + 3) / 9)
    assert figures["single/accuracy/direct_attributes"] == pytest.approx((2 + 1 + 2) / 6)
    assert figures["strict/accuracy"] == pytest.approx(1 / 3)
    assert figures["strict/accuracy/relative_position"] == 0 and figures["n"] == 3


def test_vstar_as_a_table(read: Read) -> None:
    rows = [
        {"index": i, "question": f"What colour is glove {i}?", **CHOICES, "answer": answer, "category": category,
         "image": picture(i)}
        for i, (answer, category) in enumerate((("A", "direct_attributes"), ("D", "relative_position")))
    ]  # fmt: skip
    items = read("vstar", "VStarBench.tsv", rows)
    figures = score(items, answered(items, "AC"))
    assert figures["single/accuracy"] == 0.5 and figures["single/accuracy/direct_attributes"] == 1


def test_hrbench_is_asked_in_every_cycle(read: Read) -> None:
    texts = ["red", "blue", "green", "black"]
    rows = []
    for question, category in ((0, "single"), (1, "cross")):
        for cycle in range(4):
            turned = texts[cycle:] + texts[:cycle]
            answer = "ABCD"[turned.index("red")]
            options = dict(zip("ABCD", turned, strict=True))
            rows.append(
                {
                    "index": 4 * question + cycle,
                    "question": f"What colour is thing {question}?",
                    "answer": answer,
                    "category": category,
                    **options,
                    "cycle_category": f"circle_{cycle}",
                    "image": picture(question),
                }
            )
    items = read("hrbench4k", "hr_bench_4k.tsv", rows)
    assert [item.answer for item in items] == ["A", "D", "C", "B"] * 2
    # Question 0 right in every cycle; question 1 in two of four.
    figures = score(items, answered(items, "ADCB" + "ADAA"))
    assert figures["single/accuracy"] == pytest.approx((2 + 2 + 1 + 1) / 8)
    assert figures["single/accuracy/single"] == 1 and figures["single/accuracy/cross"] == 0.5
    assert figures["single/every_cycle"] == 0.5
    assert score(read("hrbench8k", "HRBench8K.tsv", rows), answered(read("hrbench8k", "HRBench8K.tsv", rows), "A" * 8))[
        "single/accuracy"
    ] == pytest.approx(2 / 8)


def test_pope_counts_yes(read: Read) -> None:
    truth = ["Yes", "No", "Yes", "No", "No"]
    categories = ["random", "random,popular", "popular", "adversarial", "adversarial"]
    rows = [
        {"index": i, "image": picture(i), "question": f"Is there a dog in picture {i}?", "answer": a, "category": c}
        for i, (a, c) in enumerate(zip(truth, categories, strict=True))
    ]
    items = read("pope", "POPE.tsv", rows)
    assert items[0].prompt.endswith("Answer with \\boxed{Yes} or \\boxed{No}.")
    figures = score(items, answered(items, "YYNN."))
    # Spread over categories (question 1 counts twice): said Y Y Y N N ., truth Y N N Y N N.
    assert figures["single/accuracy"] == pytest.approx(2 / 6)
    assert figures["single/yes_rate"] == pytest.approx(3 / 6)
    assert figures["single/accuracy/once"] == pytest.approx(2 / 5), (
        "each question once: said Y Y N N ., truth Y N Y N N"
    )
    assert figures["single/precision"] == pytest.approx(1 / 3) and figures["single/recall"] == pytest.approx(1 / 2)
    assert figures["single/f1"] == pytest.approx(2 * (1 / 3) * (1 / 2) / (1 / 3 + 1 / 2))
    assert figures["single/f1/random"] == pytest.approx(2 / 3) and figures["single/precision/popular"] == 0
    assert figures["unreadable"] == pytest.approx(1 / 5)
    assert "strict/f1" not in figures and figures["strict/accuracy/adversarial"] == 0.5
    none = score(items, answered(items, "....."))
    assert none["single/f1"] == none["single/accuracy"] == 0


def test_hallusionbench_by_question_figure_and_pair(read: Read) -> None:
    # index: category_subcategory_visual_set_figure_question. One set, two figures, two questions about each.
    rows = [
        {
            "index": f"VD_chart_1_0_{figure}_{question}",
            "image": picture(figure),
            "question": f"Is bar {question} the highest?",
            "answer": answer,
            "category": "VD",
            "l2-category": "chart",
        }
        for figure, question, answer in ((0, 0, "Yes"), (0, 1, "No"), (1, 0, "No"), (1, 1, "No"))
    ]
    rows.append({**rows[0], "index": "VS_map_1_0_1_0", "category": "VS", "l2-category": "map", "image": picture(9)})
    items = read("hallusionbench", "HallusionBench.tsv", rows)
    figures = score(items, answered(items, "YNYNN"))
    # Right: figure 0 both; figure 1 the second; the map not.
    assert figures["single/accuracy"] == pytest.approx(3 / 5)
    assert figures["single/figure"] == pytest.approx(1 / 3)
    # Pairs: question 0 over both figures (right, wrong), question 1 (right, right), the map's (wrong).
    assert figures["single/pair"] == pytest.approx(1 / 3)
    assert figures["single/pair/VD"] == 0.5 and figures["single/figure/VS"] == 0
    assert figures["single/yes_bias"] == pytest.approx(2 / 5 - 2 / 5)


def test_mmmu_asks_one_split_several_pictures_and_nine_options(read: Read) -> None:
    nine = dict(zip("ABCDEFGHI", "abcdefghi", strict=True))
    rows = [
        {"index": "dev_Art_1", "split": "dev", "question": "?", "answer": "A", **CHOICES, "category": "Art",
         "image": picture(1)},
        {"index": "validation_Art_1", "split": "validation", "question": "Between <image 1> and <image 2>?",
         "answer": "B", **CHOICES, "category": "Art", "l2-category": "Humanities",
         "image": str([picture(2), picture(3)])},
        {"index": "validation_Math_2", "split": "validation", "question": "Which?", "answer": "I", **nine,
         "category": "Math", "l2-category": "Science", "image": picture(4)},
    ]  # fmt: skip
    items = read("mmmu", "MMMU_DEV_VAL.tsv", rows)
    assert [item.index for item in items] == ["validation_Art_1", "validation_Math_2"]
    assert items[0].question == "Between (image 1) and (image 2)?" and len(items[0].open()) == 2
    assert items[1].letters == "ABCDEFGHI"
    figures = score(items, answered(items, "BA"))
    assert figures["single/accuracy"] == 0.5 and figures["single/accuracy/Art"] == 1


@pytest.mark.parametrize(
    ("name", "file"),
    [("mmstar", "MMStar.tsv"), ("realworldqa", "RealWorldQA.tsv"), ("blink", "BLINK.tsv"), ("ai2d", "AI2D_TEST.tsv")],
)
def test_plain_multiple_choice(read: Read, name: str, file: str) -> None:
    rows = [
        {"index": i, "question": f"Where is thing {i}?", **CHOICES, "answer": answer, "category": f"c{i % 2}",
         "image": picture(i)}
        for i, answer in enumerate("ABCD")
    ]  # fmt: skip
    rows[3] |= {"C": "", "D": "", "answer": "B"}
    items = read(name, file, rows)
    assert items[3].letters == "AB"
    figures = score(items, answered(items, "ABBB", "AACB"))
    assert figures["single/accuracy"] == pytest.approx(6 / 8)
    assert figures["strict/accuracy"] == pytest.approx(2 / 4)
    assert figures["single/accuracy/c1"] == pytest.approx(3 / 4)


def test_what_was_not_asked_is_not_scored(read: Read) -> None:
    rows = [{"index": 0, "question": "?", **CHOICES, "answer": "A", "category": "c", "image": picture(0)}]
    items = read("mmstar", "MMStar.tsv", rows)
    with pytest.raises(BenchmarkError, match="1 questions have no answers"):
        score(items, {})
    with pytest.raises(BenchmarkError, match="one benchmark at a time"):
        score([], {})
