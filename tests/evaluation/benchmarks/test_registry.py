"""The registry of benchmarks: an entry is all that a new one takes."""

import json
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from aot_core.commands.cli import app
from aot_core.contracts.benchmark_registry import BENCHMARKS, Benchmark
from aot_core.contracts.benchmarks import BenchmarkSettings
from aot_core.contracts.promotion import GateSettings
from aot_core.evaluation.benchmarks.catalogue import BenchmarkError
from aot_core.evaluation.benchmarks.readers import READERS, read_benchmark
from aot_core.evaluation.benchmarks.scoring import RULES
from tests.evaluation.engines.conftest import Server
from tests.evaluation.engines.conftest import server as server

OWN = """
import json

from aot_core.evaluation.benchmarks.items import BenchmarkItem


def read(benchmark, folder, cache):
    for number, line in enumerate((folder / "questions.jsonl").read_text().splitlines()):
        row = json.loads(line)
        yield BenchmarkItem(
            benchmark=benchmark.name, index=str(number), question=row["question"], options=(("A", "one"), ("B", "two")),
            answer=row["answer"], folder=folder, images=("x.png",), image_sha256=(str(number),),
        )


def halves(answered):
    right = [right for _, right, _ in answered]
    return {"accuracy": sum(right) / len(right), "second_half": right[-1] + 0.0}
"""


@pytest.fixture
def ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that holds a benchmark `ours` of two questions; its entry stands in the registry."""
    (tmp_path / "our_benchmark.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    folder = tmp_path / "benchmarks"
    (folder / "ours").mkdir(parents=True)
    Image.new("RGB", (8, 6)).save(folder / "ours" / "x.png")
    rows = [{"question": "How many?", "answer": "B"}, {"question": "How many now?", "answer": "A"}]
    (folder / "ours" / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    entry = Benchmark(
        "ours", ("ours",), 2, rule="our_benchmark:halves", folder_reader="our_benchmark:read", margin=0.07
    )
    monkeypatch.setitem(BENCHMARKS, "ours", entry)
    return folder


def test_an_entry_is_all_that_a_benchmark_takes(ours: Path, tmp_path: Path, server: Server) -> None:
    home, runner = tmp_path / "home", CliRunner()
    assert BenchmarkSettings(names=("ours",)).names == ("ours",)
    assert GateSettings().benchmark_margins["ours"] == 0.07
    verified = runner.invoke(app, ["bench", "verify", str(ours), "--name", "ours"])
    assert verified.exit_code == 0 and "readable" in verified.stdout
    ask = ["bench", "run", str(ours), "--name", "ours", "--endpoint", server.url, "--model", "m", "--samples", "2"]
    done = runner.invoke(app, [*ask, "--home", str(home)])
    assert done.exit_code == 0, done.output
    (file,) = home.rglob("figures.json")
    figures = json.loads(file.read_text())["ours"]
    # The server says \boxed{A} to everything: wrong on the first, right on the second.
    assert (figures["strict/accuracy"], figures["single/second_half"], figures["n"]) == (0.5, 1.0, 2.0)
    compared = runner.invoke(app, ["bench", "second-opinion", "org/model", "--name", "ours", "--home", str(home)])
    assert compared.exit_code == 2 and "not known to lmms-eval" in compared.stderr


def test_what_an_entry_names_is_there(ours: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for one in BENCHMARKS.values():
        if one.name != "ours":
            assert one.rule in RULES and one.reader in READERS
            assert one.folder_reader in READERS or not one.folder_reader
    monkeypatch.setitem(BENCHMARKS, "ours", Benchmark("ours", ("ours",), 2, folder_reader="our_benchmark:raed"))
    with pytest.raises(ValueError, match="benchmark ours: folder_reader: 'our_benchmark:raed' cannot be imported"):
        read_benchmark("ours", ours, ours)


def test_a_folder_is_not_read_as_another_benchmark(tmp_path: Path) -> None:
    (tmp_path / "POPE.tsv").mkdir()
    with pytest.raises(BenchmarkError, match=r"POPE\.tsv is a folder, and pope is published as a file"):
        read_benchmark("pope", tmp_path, tmp_path / "cache")
