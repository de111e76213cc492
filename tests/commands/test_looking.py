"""Commands that look into a home or a store create neither, and nothing is deleted by what another home knows."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from aot_core.commands.cli import app
from aot_core.home import Home
from aot_core.store import LocalStore
from aot_core.store.ledger import Ledger
from tests.commands.test_housekeeping import left, made

LOOKING = [
    ["pool"], ["trend"], ["history"], ["compare", "a", "b"], ["reevaluate"], ["promote"], ["rollback"],
    ["store", "verify"], ["store", "gc"], ["store", "gc", "--delete"],
]  # fmt: skip


@pytest.mark.parametrize("command", LOOKING, ids=" ".join)
def test_a_misspelt_home_is_refused_and_not_made(tmp_path: Path, command: list[str]) -> None:
    said = CliRunner().invoke(app, [*command, "--home", str(tmp_path / "typo")])
    assert said.exit_code == 2 and "--home" in said.output, said.output
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("command", LOOKING, ids=" ".join)
def test_a_misspelt_store_is_refused_and_not_made(tmp_path: Path, command: list[str]) -> None:
    Home(tmp_path / "home").create()
    said = CliRunner().invoke(app, [*command, "--home", str(tmp_path / "home"), "--store", str(tmp_path / "typo")])
    assert said.exit_code == 2 and "does not exist" in said.output, said.output
    assert [path.name for path in tmp_path.iterdir()] == ["home"]


def test_nothing_is_exported_from_a_home_that_is_not_there(tmp_path: Path) -> None:
    said = CliRunner().invoke(app, ["export", str(tmp_path / "out"), "--home", str(tmp_path / "typo")])
    assert said.exit_code == 2 and "does not exist" in said.output, said.output
    assert not list(tmp_path.iterdir())


def test_gc_deletes_nothing_by_the_registry_of_another_home(tmp_path: Path) -> None:
    """The store's champion is known to the registry of the home that registered it, and to no other."""
    home, other = Home(tmp_path / "home"), Home(tmp_path / "other")
    home.create()
    other.create()
    champion = made(home, 0)
    ledger = Ledger(LocalStore(home.store), "aot-defender")
    with ledger.lock():
        ledger.append(kind="done", action="promote", from_version="", to_version="1", who="me", why="better")
    command = ["store", "gc", "--home", str(other.root), "--store", str(home.store)]
    assert CliRunner().invoke(app, command).exit_code == 0, "counting is harmless"
    said = CliRunner().invoke(app, [*command, "--delete"])
    assert said.exit_code == 2 and "holds no version, so nothing is deleted" in " ".join(said.output.split())
    assert champion.key in left(home)


def test_doctor_shows_no_password(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://me:hunter2@mlflow.example")
    monkeypatch.setenv("PREFECT_API_URL", "https://me:hunter2@prefect.example/api")
    for more in ([], ["--json"]):
        said = CliRunner().invoke(app, ["doctor", "--home", str(tmp_path), *more])
        told = "".join(said.output.split())
        assert "hunter2" not in told and "https://***@mlflow" in told
