"""Where `AOT_STORE` names a team's store, as in the worker of infra/compose.yaml, commands look there by themselves."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from aot_core.commands.cli import app
from aot_core.home import Home
from tests.commands.test_housekeeping import home, made

__all__ = ["home"]


def said(*arguments: str) -> str:
    shown = CliRunner().invoke(app, list(arguments))
    assert shown.exit_code == 0, shown.output
    return shown.output


@pytest.mark.parametrize("command", [["verify"], ["gc", "--keep-days", "0"]], ids=lambda command: command[0])
def test_the_environments_store_is_taken_unless_another_is_named(
    command: list[str], home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made(home, 1)
    monkeypatch.setenv("AOT_STORE", str(home.store))
    Home(tmp_path / "mine").create()
    mine = ["--home", str(tmp_path / "mine")]
    assert "curate" in said("store", *command, *mine)
    empty = str(tmp_path / "empty")
    Path(empty).mkdir()
    assert "curate" not in said("store", *command, *mine, "--store", empty)
    config = tmp_path / "config.toml"
    config.write_text(f'name = "own"\n[run]\nstore = "{empty}"\n')
    assert "curate" not in said("store", *command, str(config), *mine)


def test_the_ledger_is_looked_for_there(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = ["--home", str(tmp_path / "mine")]
    refused = CliRunner().invoke(app, ["history", *mine])
    assert refused.exit_code == 2 and "holds no store" in refused.output
    monkeypatch.setenv("AOT_STORE", str(home.store))
    assert "The ledger of aot-defender is empty" in said("history", *mine)
