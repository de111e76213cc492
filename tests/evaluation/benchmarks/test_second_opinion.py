"""What is made of lmms-eval's results, whatever they are: a module of its name, run as a real process, writes them.

With lmms-eval itself: `make test-lmms`.
"""

import json
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from aot_core.commands.cli import app
from aot_core.evaluation.benchmarks.catalogue import BenchmarkError
from aot_core.evaluation.benchmarks.second_opinion import second_opinion

STAND_IN = """
import json, sys
from pathlib import Path

told = dict(zip(sys.argv[1::2], sys.argv[2::2]))
if "broken" in told["--model_args"]:
    sys.exit(3)
if "silent" in told["--model_args"]:
    sys.exit(0)
figures = {
    "pope": {"alias": "pope", "pope_accuracy,none": 0.86, "pope_accuracy_stderr,none": "N/A"},
    "hallusion_bench_image": {"qAcc,none": 40.1, "aAcc,none": 61.5},
    "realworldqa": {"exact_match,flexible-extract": 0.68},
    "vstar_bench": {"vstar_overall_acc,none": 0.5},
    "ai2d": {"exact_match,flexible-extract": 68.0},
    "mmstar": {"coarse perception,none": 0.7},
}
folder = Path(told["--output_path"], "org__model")
folder.mkdir(parents=True, exist_ok=True)
results = {task: figures[task] for task in told["--tasks"].split(",")}
(folder / "20261124_030000_results.json").write_text(json.dumps({"results": results, "told": told}))
"""


@pytest.fixture
def lmms_eval(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "lmms_eval").mkdir()
    (tmp_path / "lmms_eval" / "__init__.py").write_text("")
    (tmp_path / "lmms_eval" / "__main__.py").write_text(STAND_IN)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
    return tmp_path


def test_its_figures_are_read(lmms_eval: Path) -> None:
    out = lmms_eval / "out"
    found = second_opinion("org/model", ["pope", "hallusionbench", "realworldqa"], out, limit=8)
    assert found == pytest.approx({"pope": 0.86, "hallusionbench": 0.615, "realworldqa": 0.68})
    one_in_200 = second_opinion("org/model", ["vstar"], lmms_eval / "percent")
    assert one_in_200 == pytest.approx({"vstar": 0.005}), "half a percent, not one half"
    (file,) = out.rglob("*_results.json")
    told = json.loads(file.read_text())["told"]
    assert told["--model_args"] == "pretrained=org/model" and told["--limit"] == "8" and told["--model"] == "qwen2_5_vl"


def test_what_goes_wrong_is_said(lmms_eval: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BenchmarkError, match="ended with code 3"):
        second_opinion("broken", ["pope"], lmms_eval / "a")
    with pytest.raises(BenchmarkError, match="wrote no results, though it ended with code 0"):
        second_opinion("silent", ["pope"], lmms_eval / "silent")
    with pytest.raises(BenchmarkError, match=r"exact_match of ai2d is 68\.0, not within 0 and 1"):
        second_opinion("org/model", ["ai2d"], lmms_eval / "other")
    with pytest.raises(BenchmarkError, match="nowhere: there is no such folder"):
        second_opinion("org/model", ["pope"], lmms_eval / "e", data=lmms_eval / "nowhere")
    with pytest.raises(BenchmarkError, match="hold no average of mmstar"):
        second_opinion("org/model", ["mmstar"], lmms_eval / "b")
    with pytest.raises(BenchmarkError, match="are not known to lmms-eval"):
        second_opinion("org/model", ["hope"], lmms_eval / "c")
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path != str(lmms_eval)])
    with pytest.raises(BenchmarkError, match="is not installed"):
        second_opinion("org/model", ["pope"], lmms_eval / "d")


def test_the_command_puts_ours_beside(lmms_eval: Path) -> None:
    ours = lmms_eval / "figures.json"
    ours.write_text(json.dumps({"pope": {"single/accuracy": 0.84}}))
    command = [
        "bench",
        "second-opinion",
        "org/model",
        "--name",
        "pope",
        "--figures",
        str(ours),
        "--home",
        str(lmms_eval),
    ]
    shown = CliRunner().invoke(app, command)
    assert shown.exit_code == 0, shown.output
    assert all(cell in shown.stdout for cell in ("86.0", "84.0", "-2.0"))
