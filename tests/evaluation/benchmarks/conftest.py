"""Small files in the benchmarks' true formats."""

import base64
import csv
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from PIL import Image

from aot_core.evaluation.benchmarks.items import BenchmarkItem
from aot_core.evaluation.benchmarks.readers import read_benchmark


def picture(shade: int) -> str:
    """A small PNG as base64, another one for every shade."""
    buffer = io.BytesIO()
    Image.new("RGB", (8, 6), (shade, 0, 0)).save(buffer, format="PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def write_table(path: Path, rows: Sequence[dict[str, object]]) -> None:
    """As pandas writes a VLMEvalKit file: tabs, quotes where needed, empty where there is nothing."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, columns, delimiter="\t", restval="")
        writer.writeheader()
        writer.writerows(rows)


def write_vstar(folder: Path) -> None:
    for number, (category, label) in enumerate(
        [("direct_attributes", "A"), ("direct_attributes", "C"), ("relative_position", "B")]
    ):
        (folder / category).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20, 10), (0, number, 0)).save(folder / category / f"sa_{number}.jpg")
        last = ["(C) kevlar", "(D) leather"] if category == "direct_attributes" else []
        lines = ["What is the material of the glove?", "(A) rubber", "(B) cotton", *last]
        row = {
            "text": "\n".join([*lines, "Answer with the option's letter from the given choices directly."]),
            "category": category,
            "label": label,
            "question_id": str(number),
            "image": f"{category}/sa_{number}.jpg",
        }
        with (folder / "test_questions.jsonl").open("a") as stream:
            stream.write(json.dumps(row) + "\n")


@pytest.fixture
def read(tmp_path: Path) -> Callable[[str, str, Sequence[dict[str, object]]], list[BenchmarkItem]]:
    """Write rows to a published file's name and read them."""

    def read(name: str, file: str, rows: Sequence[dict[str, object]]) -> list[BenchmarkItem]:
        write_table(tmp_path / file, rows)
        return read_benchmark(name, tmp_path, tmp_path / "cache")

    return read
