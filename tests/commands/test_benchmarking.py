"""Benchmarks by the command line and in the evaluation: verified, asked, and asked again to the same figures."""

import hashlib
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from aot_core.commands.cli import app
from aot_core.contracts.benchmark_registry import BENCHMARKS, Benchmark
from aot_core.contracts.benchmarks import BenchmarkSettings
from aot_core.contracts.promotion import GateSettings
from aot_core.evaluation.benchmarks.asking import choose_questions
from aot_core.evaluation.benchmarks.readers import read_benchmark
from aot_core.evaluation.benchmarks.verify import verify
from aot_core.evaluation.items import read_items
from aot_core.evaluation.stops import unreadable_answers
from tests.evaluation.benchmarks.conftest import picture, write_table, write_vstar
from tests.evaluation.engines.conftest import Server
from tests.evaluation.engines.conftest import server as server


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """VStar, POPE and a cut-off MMStar."""
    folder = tmp_path / "benchmarks"
    folder.mkdir()
    write_vstar(folder / "vstar_bench")
    rows = [
        {"index": i, "image": picture(i), "question": f"Is thing {i} red?", "answer": "Yes", "category": "random"}
        for i in range(6)
    ]
    write_table(folder / "POPE.tsv", rows)
    (folder / "MMStar.tsv").write_text("index\tquestion\n1\t?\n")
    return folder


def test_verify_tells_what_a_folder_holds(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = {one.name: one for one in verify(folder, pictures=True)}
    assert (found["pope"].state, found["pope"].questions) == ("readable", 6)
    assert "the published one has 5127" in found["pope"].told
    assert found["vstar"].state == "readable" and found["blink"].state == "absent"
    assert found["mmstar"].state == "broken" and "has no column answer" in found["mmstar"].told
    # With its checksum known, the same file is the published one.
    md5 = hashlib.md5((folder / "POPE.tsv").read_bytes()).hexdigest()
    monkeypatch.setitem(BENCHMARKS, "pope", Benchmark("pope", ("POPE.tsv",), 6, (md5,), "yes_no"))
    assert verify(folder, ["pope"])[0].state == "published"


def test_the_commands(folder: Path, tmp_path: Path, server: Server) -> None:
    runner = CliRunner()
    shown = runner.invoke(app, ["bench", "verify", str(folder)])
    assert shown.exit_code == 1 and "broken" in shown.stdout
    assert runner.invoke(app, ["bench", "verify", str(folder), "--name", "pope"]).exit_code == 0
    home = ["--home", str(tmp_path / "home")]
    ask = ["bench", "run", str(folder), "--name", "vstar", "--name", "pope", *home]
    neither = runner.invoke(app, ask)
    assert neither.exit_code == 2 and "either --defender or --endpoint" in neither.stderr
    done = runner.invoke(app, [*ask, "--endpoint", server.url, "--model", "m", "--samples", "2"])
    assert done.exit_code == 0, done.output
    (place,) = (tmp_path / "home" / "benchmarks").iterdir()
    figures = json.loads((place / "figures.json").read_text())
    # The server says \boxed{A} to everything: right once of three, and neither yes nor no.
    assert figures["vstar"]["strict/accuracy"] == pytest.approx(1 / 3) and figures["pope"]["unreadable"] == 1
    assert {item.condition for item in read_items(place / "items.parquet")} == {"bench/vstar", "bench/pope"}
    asked = sum(server.asked.values())
    assert asked == 2 * (3 + 6)
    again = runner.invoke(app, [*ask, "--endpoint", server.url, "--model", "m", "--samples", "2"])
    assert again.exit_code == 0 and sum(server.asked.values()) == asked
    assert json.loads((place / "figures.json").read_text()) == figures


def test_answers_that_the_limit_cut_off_are_unreadable_and_named(folder: Path, tmp_path: Path, server: Server) -> None:
    server.says = lambda *_: r"\boxed{A}"
    server.trouble = lambda name, _: "length" if "red" not in name else ""
    command = ["bench", "run", str(folder), "--name", "vstar", "--home", str(tmp_path / "home")]
    done = CliRunner().invoke(app, [*command, "--endpoint", server.url, "--model", "m", "--samples", "2"])
    assert done.exit_code == 0, done.output
    (place,) = (tmp_path / "home" / "benchmarks").iterdir()
    figures = json.loads((place / "figures.json").read_text())["vstar"]
    assert figures["unreadable"] == figures["cut_off"] == 1 and figures["single/accuracy"] == 0
    items = read_items(place / "items.parquet")
    assert {(item.letters, item.cut_off) for item in items} == {((None, None), 2)}
    stop = unreadable_answers(items, GateSettings())
    assert stop.stopped
    assert "100.0 % of 6 answers name no option" in stop.told
    assert "6 of them were cut off at the limit on new tokens (finish_reason length)" in stop.told


def test_fewer_questions_are_a_part_of_more_and_cycles_stay_together(folder: Path, tmp_path: Path) -> None:
    items = read_benchmark("pope", folder, tmp_path)
    few = choose_questions(items, 3, seed=1)
    more = [item.key for item in choose_questions(items, 5, seed=1)]
    assert len(few) == 3 and all(item.key in more for item in few)
    rows = [
        {"index": 4 * q + c, "image": picture(q), "question": f"{q}?", "answer": "A", "category": "single",
         "cycle_category": str(c), **dict(zip("ABCD", "wxyz"[c:] + "wxyz"[:c], strict=True))}
        for q in range(5)
        for c in range(4)
    ]  # fmt: skip
    write_table(folder / "hr_bench_4k.tsv", rows)
    chosen = choose_questions(read_benchmark("hrbench4k", folder, tmp_path), 9, seed=0)
    assert len(chosen) == 8 and len({item.question for item in chosen}) == 2


def test_unknown_benchmarks_are_refused_by_the_config() -> None:
    with pytest.raises(ValueError, match="are unknown or repeat"):
        BenchmarkSettings(names=("pope", "hope"))
    assert set(BenchmarkSettings(names=tuple(BENCHMARKS)).names) == set(BENCHMARKS)
