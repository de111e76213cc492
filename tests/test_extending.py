"""`docs/adding-a-stage.md`, followed to the letter in a copy of the tree: each block goes where the page says.

What the page promises is then asked there: its test passes, released keys stay, the lint's import contracts hold, and
a campaign runs the new stage as a Prefect task.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from aot_core.contracts.loading import load_campaign
from aot_core.contracts.prepare_data import PrepareDataInputs
from aot_core.contracts.spec import Place
from aot_core.engine.identity import stage_spec

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "adding-a-stage.md").read_text()
BLOCK = re.compile(
    r"(?:New file `(?P<new>[^`]+)`|In `(?P<old>[^`]+)`, (?P<where>above|below) `(?P<line>[^`]+)`):\n\n"
    r"```(?:python)?\n(?P<text>.*?)```\n",
    re.DOTALL,
)


def insert(path: Path, text: str, where: str, line: str) -> None:
    """Put text above or below the one line that reads so."""
    content = path.read_text()
    assert content.count(f"\n{line}\n") == 1, f"{path} has no single line {line!r}; mend docs/adding-a-stage.md"
    found = content.index(f"\n{line}\n") + 1
    place = found if where == "above" else found + len(line) + 1
    path.write_text(content[:place] + text + content[place:])


def run(tree: Path, *command: str) -> str:
    """What a command says in the copy, on whose modules alone it runs."""
    done = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=tree,
        env={**os.environ, "PYTHONPATH": str(tree), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what the page changes and of what its commands need, with the page followed."""
    copy = tmp_path_factory.mktemp("checkout")
    for folder in ("aot_core", "flows", "configs", "tests/engine", "tests/stages"):
        shutil.copytree(ROOT / folder, copy / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("pyproject.toml", "tests/conftest.py"):
        shutil.copy(ROOT / file, copy / file)
    blocks = list(BLOCK.finditer(PAGE))
    assert len(blocks) == PAGE.count("\n```") // 2, "a block whose place the page does not tell"
    for block in blocks:
        if block["new"]:
            (copy / block["new"]).write_text(block["text"])
        else:
            insert(copy / block["old"], block["text"], block["where"], block["line"])
    return copy


def test_the_new_stages_own_test_passes_and_released_keys_stay(tree: Path) -> None:
    told = run(tree, "pytest", "-n", "0", "-vv", "tests/stages/test_tally.py", "tests/engine/test_identity.py")
    assert "test_every_question_is_counted_once PASSED" in told
    assert "test_a_released_campaign_keeps_its_key PASSED" in told and "test_a_released_stage_keeps_its_key" in told


def test_the_lint_passes(tree: Path) -> None:
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    environment = {"PYTHONPATH": str(tree)}
    done = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    changed = ("aot_core", "flows", "tests/stages/test_tally.py")
    run(tree, "ruff", "check", "--no-cache", *changed)
    run(tree, "ruff", "format", "--no-cache", "--check", *changed)


def test_a_campaign_runs_the_new_stage_and_its_spec_finds_the_record(tree: Path, tmp_path: Path) -> None:
    small = ["prepare_data.effectiveness.enabled=false", "stop_after=prepare_data", "run.device=cpu", "run.threads=1"]
    home = ["--home", str(tmp_path), *(f"--set={one}" for one in small)]
    told = run(tree, "aot_core", "run", "configs/smoke.toml", *home)
    assert re.search(r"running +start +tally", told), told
    (file,) = tmp_path.glob("campaigns/*/summary.json")
    data, tally = (step["record"] for step in json.loads(file.read_text())["steps"])
    assert tally["stage"] == "tally"
    assert sum(tally["outputs"]["kinds"].values()) == 48  # of configs/smoke.toml's split `train`

    # The other stages' keys are those of the tree without it.
    config = load_campaign(ROOT / "configs/smoke.toml", small).stage_config("prepare_data")
    assert data["key"] == stage_spec("prepare_data", config, PrepareDataInputs(), Place(store="")).key

    spec = {
        "stage": "tally",
        "config": tally["identity"]["config"],
        "inputs": {"dataset": data["artifact"]},
        "identity": tally["identity"],
        "place": {"store": str(tmp_path / "store")},
    }
    (tmp_path / "spec.json").write_text(json.dumps(spec))
    run(tree, "aot_core.stages", str(tmp_path / "spec.json"))
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["reused"] and result["record"] == tally
