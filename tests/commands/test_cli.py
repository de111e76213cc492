"""The command line answers fast, and imports nothing heavy before it must."""

import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from aot_core.commands.cli import app

CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.mark.parametrize(
    "module", ["aot_core.commands.cli", "aot_core.contracts.campaign", "aot_core.launch.subprocess"]
)
def test_torch_is_not_imported(module: str) -> None:
    heavy = "{'torch', 'transformers', 'diffusers', 'prefect', 'mlflow'}"
    code = f"import sys, {module}; found = {heavy} & set(sys.modules); sys.exit(str(found) if found else 0)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_flows_do_not_import_torch() -> None:
    code = "import sys, flows.coevolution; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_dry_run_prints_the_resolved_campaign_and_starts_nothing(tmp_path: Path) -> None:
    arguments = ["run", str(CONFIGS / "tiny.toml"), "--dry-run", "--home", str(tmp_path), "--set", "rounds=2"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0
    assert '"rounds": 2' in result.stdout and '"sde_steps"' in result.stdout
    assert not list(tmp_path.iterdir())


def test_an_unknown_key_is_refused_with_the_fix() -> None:
    result = CliRunner().invoke(app, ["run", str(CONFIGS / "tiny.toml"), "--set", "curate.scnes=1"])
    assert result.exit_code == 2
    assert "curate.scnes: unknown key; did you mean 'scenes'?" in result.stderr


def test_status_of_an_empty_home(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["status", "--home", str(tmp_path)])
    assert result.exit_code == 0 and "No campaign" in result.stdout


def test_doctor_knows_what_is_there(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["doctor", "--home", str(tmp_path)])
    assert "aot-tiny-vl" in result.stdout and "torch" in result.stdout


def aot(*arguments: str) -> "subprocess.CompletedProcess[str]":
    """The program itself, as people start it."""
    return subprocess.run(
        [sys.executable, "-m", "aot_core.commands.cli", *arguments], capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("name", ["what?", "a%20b", "a%3Fb"])
@pytest.mark.parametrize("command", [["run", str(CONFIGS / "smoke.toml")], ["status"], ["history"], ["store", "gc"]])
def test_a_home_that_no_address_can_hold_is_refused(tmp_path: Path, command: list[str], name: str) -> None:
    said = aot(*command, "--home", str(tmp_path / name / "home"))
    assert said.returncode == 2 and "give --home a path without '?'" in said.stderr
    assert "Traceback" not in said.stderr and not list(tmp_path.iterdir())


def test_a_home_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("a file in its place, which stops a superuser too")
    said = aot("run", str(CONFIGS / "smoke.toml"), "--home", str(tmp_path / "home"))
    assert said.returncode == 2 and "cannot be made" in said.stderr and "Traceback" not in said.stderr
    said = aot("run", str(CONFIGS / "smoke.toml"), "--home", "/proc/home")
    assert said.returncode == 2 and "give --home a writable folder" in said.stderr
