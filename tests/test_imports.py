"""The lint's import contracts, held against imports that break them, and what an import really loads."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HEAVY = ("torch", "transformers", "diffusers", "trl", "peft")

PLANTED = {
    "stages/curate.py": ("import mlflow", "mlflow is imported by tracking alone"),
    "commands/cli.py": ("import torch", "flows, commands, promotion and tracking never import torch themselves"),
    "contracts/scene.py": ("import torch", "contracts, launch, store and what they stand on never reach torch"),
    "worlds/truth.py": ("import aot_core.data.dataset", "imports go down only"),
    "data/pipeline.py": ("import aot_core.worlds.shapes.world", "worlds.opening alone opens a world"),
    "worlds/photographs/check.py": ("import aot_core.worlds.shapes.world", "the worlds do not know each other"),
    "attacker/reward.py": ("import aot_core.defender.rewards", "imports go down only"),
    "evaluation/gate.py": ("import boto3", "boto3 is imported by store alone"),
    "tracking/registry.py": ("import docker", "docker is imported by launch alone"),
    "engine/runner.py": ("import prefect", "prefect is imported by flows alone"),
    "data/build.py": ("import flows.tasks", "flows stands above aot_core"),
    "loose.py": ("", "imports go down only"),
    "../flows/tasks.py": ("import torch", "flows, commands, promotion and tracking never import torch themselves"),
    "../flows/closing.py": ("import mlflow", "mlflow is imported by tracking alone"),
}
"""File -> the import planted there, and the contract that it breaks. A module outside of all layers breaks one, too."""


def lint(tree: Path) -> tuple[int, str]:
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    done = subprocess.run(command, cwd=tree, env={"PYTHONPATH": str(tree)}, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of all that the lint reads."""
    folder = tmp_path_factory.mktemp("checkout")
    for package in ("aot_core", "flows"):
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("*.safetensors", "__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


def test_the_lint_finds_every_planted_import(tree: Path) -> None:
    """Planted together and told apart by name: reading the tree takes most of the lint's time."""
    code, told = lint(tree)
    assert code == 0, told
    for file, (line, _) in PLANTED.items():
        path = tree / "aot_core" / file
        path.write_text(f"{line}\n{path.read_text() if path.exists() else ''}")
    code, told = lint(tree)
    assert code != 0
    # The layers' contract names a module outside of all layers and then stops.
    (tree / "aot_core" / "loose.py").unlink()
    told += lint(tree)[1]
    for file, (line, contract) in PLANTED.items():
        assert f"{contract} BROKEN" in told, contract
        module = ".".join(Path(file.removeprefix("../")).with_suffix("").parts)
        module = module if file.startswith("../") else f"aot_core.{module}"
        imported = line.removeprefix("import ")
        assert (f"{module} -> {imported}" in told) if line else ("loose" in told), f"{module}: {line}\n{told}"


@pytest.mark.parametrize("package", ["flows", "aot_core/commands", "aot_core/contracts", "aot_core/launch"])
def test_no_import_loads_torch(package: str) -> None:
    """What is imported inside of functions is the body's own affair; importing a module must stay cheap."""
    files = [file for file in (ROOT / package).glob("*.py") if file.name != "__main__.py"]
    modules = [".".join(file.relative_to(ROOT).with_suffix("").parts) for file in files]
    code = f"import sys\nfor m in {modules}: __import__(m)\nsys.exit(str(set({HEAVY}) & set(sys.modules) or '') or 0)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert modules and done.returncode == 0, done.stderr
