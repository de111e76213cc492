"""The package outside of a checkout: a wheel, installed into an environment of its own."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from aot_core.contracts.loading import SHIPPED_CONFIGS, ConfigError, find_config, load_campaign

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`aot`, from a wheel of this tree; what it depends on is the tests' own."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"  # setuptools leaves files where it builds
    source.mkdir()
    for name in ("aot_core", "flows", "configs"):
        shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy2(ROOT / name, source / name)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    run([*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), str(source)])
    run([sys.executable, "-m", "venv", "--without-pip", str(folder / "venv")])
    program = folder / "venv" / "bin" / "python"
    (wheel,) = folder.glob("*.whl")
    run([sys.executable, "-m", "pip", "--quiet", "--python", str(program), "install", "--no-deps", str(wheel)])
    site = run([str(program), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]).strip()
    (Path(site) / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    shutil.rmtree(source)
    return folder / "venv" / "bin" / "aot"


def run(command: list[str], folder: Path | None = None) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_a_wheel_runs_a_shipped_campaign_in_an_empty_folder(installed: Path, tmp_path: Path) -> None:
    told = run([str(installed), "run", "smoke", "--dry-run"], tmp_path)
    assert json.loads(told)["name"] == "smoke"
    doors = "import aot_core, flows.coevolution; from aot_core.base_models.names import model_folder as folder; "
    doors += "print(aot_core.__file__, *map(folder, ('aot-tiny-vl', 'aot-tiny-edit')), sep='\\n')"
    where = run([str(installed.with_name("python")), "-c", doors], tmp_path).split()
    assert len(where) == 3 and all(place.startswith(str(installed.parents[1])) for place in where)


def test_every_campaign_and_every_model_s_file_is_in_the_wheel(installed: Path) -> None:
    (inside,) = (installed.parents[1] / "lib").glob("*/site-packages/aot_core")
    for folder, kept in (("configs", ROOT / "configs"), ("base_models", ROOT / "aot_core" / "base_models")):
        tracked = run(["git", "ls-files", "."], kept).split()
        assert tracked and not [name for name in tracked if not (inside / folder / name).is_file()]


def test_a_name_is_a_shipped_campaign_unless_it_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_campaign(Path("tiny")) == load_campaign(ROOT / "configs" / "tiny.toml")
    with pytest.raises(ConfigError, match=r"'configs/tiny\.toml' does not exist; there are .*smoke, tiny"):
        load_campaign(Path("configs/tiny.toml"))
    (tmp_path / "tiny").mkdir()
    assert find_config(Path("tiny")) == SHIPPED_CONFIGS / "tiny.toml"
    (tmp_path / "smoke").write_text('name = "mine"')
    assert load_campaign(Path("smoke")).name == "mine"
