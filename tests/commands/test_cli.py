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
