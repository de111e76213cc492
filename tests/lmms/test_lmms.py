"""`aot bench second-opinion` with lmms-eval itself: an exported tiny Defender, a small RealWorldQA of drawn scenes.

Our own benchmark asks the same model the same questions, from VLMEvalKit's format: both figures come to stand side by
side.
"""

import base64
import io
import json
import re
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset, Image
from typer.testing import CliRunner

from aot_core.commands.cli import app
from aot_core.evaluation.benchmarks.catalogue import BenchmarkError
from aot_core.evaluation.benchmarks.second_opinion import second_opinion
from aot_core.worlds.shapes import world
from aot_core.worlds.shapes.questions import ask_world
from tests.evaluation.benchmarks.conftest import write_table
from tests.tracking.test_serving import exported, home

__all__ = ["exported", "home"]
pytestmark = [pytest.mark.lmms, pytest.mark.timeout(1800)]

QUESTIONS = 40
PUBLISHED = "lmms-lab-encoder/RealWorldQA"
ON_A_CPU = ["device=cpu", "device_map=cpu", "min_pixels=4096", "max_pixels=4096"]
"""The tiny model's pictures have 64 x 64 pixels; the adapter would enlarge them to 448 x 448."""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same questions twice: as the hub has RealWorldQA, for lmms-eval, and as VLMEvalKit has it, for us."""
    folder = tmp_path_factory.mktemp("data")
    rng, rows, table = np.random.default_rng(0), [], []
    while len(rows) < QUESTIONS:
        objects = world.random_objects(rng, 3)
        question = ask_world(rng, "existence", objects)
        if question is None:
            continue
        buffer = io.BytesIO()
        world.render(objects, world.random_backdrop(rng)).save(buffer, format="PNG")
        options = dict(zip("ABCD", question.options, strict=False))
        listed = "\n".join(f"{letter}. {text}" for letter, text in options.items())
        asked = f"{question.text}\n{listed}\nAnswer with \\boxed{{X}}."
        picture = {"bytes": buffer.getvalue(), "path": None}
        rows.append({"image": picture, "question": asked, "answer": question.answer})
        image = base64.b64encode(buffer.getvalue()).decode()
        row = {"index": len(table), "question": question.text, "answer": question.answer, "image": image}
        table.append(row | options)
    published = folder / PUBLISHED
    published.mkdir(parents=True)
    Dataset.from_list(rows).cast_column("image", Image()).to_parquet(published / "test-00000-of-00001.parquet")
    write_table(folder / "RealWorldQA.tsv", table)
    return folder


def test_both_figures_stand_side_by_side(exported: Path, data: Path, tmp_path: Path) -> None:
    runner = CliRunner(env={"COLUMNS": "200", "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hub")})
    home = ["--home", str(tmp_path / "home")]
    ours = ["bench", "run", str(data), "--name", "realworldqa", "--defender", str(exported), "--device", "cpu", *home]
    done = runner.invoke(app, ours)
    assert done.exit_code == 0, done.output
    (figures,) = (tmp_path / "home" / "benchmarks").rglob("figures.json")
    mine = json.loads(figures.read_text())["realworldqa"]["single/accuracy"]

    command = ["bench", "second-opinion", str(exported), "--name", "realworldqa", "--figures", str(figures), *home]
    command += ["--data", str(data), *(part for argument in ON_A_CPU for part in ("--adapter-arg", argument))]
    shown = runner.invoke(app, command)
    assert shown.exit_code == 0, shown.output
    theirs = float(re.findall(r"realworldqa\W+(\d+\.\d)", shown.stdout)[0]) / 100
    print(f"lmms-eval {version('lmms-eval')}: {theirs:.3f}; here: {mine:.3f}; n = {QUESTIONS}")
    (written,) = (tmp_path / "home").rglob("*_results.json")
    results = json.loads(written.read_text())
    assert results["n-samples"]["realworldqa"]["effective"] == QUESTIONS
    assert theirs == pytest.approx(results["results"]["realworldqa"]["exact_match,none"], abs=5e-4)
    # It asks in bfloat16, about JPEGs, under another system prompt: the model still sees what is drawn.
    assert mine > 0.8 and abs(theirs - mine) <= 0.1


def test_a_run_that_fails_is_no_figure(data: Path, tmp_path: Path) -> None:
    """lmms-eval itself ends with code 0 where its model cannot be loaded."""
    (tmp_path / "empty").mkdir()
    with pytest.raises(BenchmarkError, match="lmms-eval wrote no results, though it ended with code 0"):
        second_opinion(str(tmp_path / "empty"), ["realworldqa"], tmp_path / "out", arguments=ON_A_CPU, data=data)
