"""Nothing is cut: every command that prints a table, in a terminal of 80 columns and in a pipe."""

import json
import os
import pty
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from aot_core.commands.cli import app
from aot_core.contracts.artifact import ArtifactRef
from aot_core.contracts.promotion import Decision, GateSettings
from aot_core.contracts.series import EditionEnd, EditionPlan
from aot_core.contracts.summary import CampaignSummary
from aot_core.home import Home
from aot_core.series.book import SeriesBook
from aot_core.store import LocalStore
from aot_core.store.ledger import Ledger
from tests.evaluation.test_report import summary as summary

CONFIGS = Path(__file__).parents[2] / "configs"
WHY = "a reason that is a good deal longer than any column of a table of eighty characters would have room for"


@pytest.fixture
def home(summary: CampaignSummary, tmp_path: Path) -> Path:
    """A home with two campaigns, a ledger and a series, whose texts are long."""
    place = Home(tmp_path / "home")
    place.create()
    for number, key in enumerate(("c" * 64, "d" * 64)):
        folder = place.campaign_folder("tiny", key)
        folder.mkdir(parents=True)
        told = summary.model_copy(
            update={"key": key, "name": f"tiny-{number}", "message": WHY, "registered_version": ""}
        )
        (folder / "summary.json").write_text(told.model_dump_json())
    store = LocalStore(place.store)
    decision = Decision(
        model="aot-defender", challenger="12", challenger_sha256="2" * 64, promote=False, reason=WHY, alpha=0.05,
        settings=GateSettings(), figures={"challenger/worst": 0.5, "challenger/strict/clean": 0.9},
    )  # fmt: skip
    ledger = Ledger(store, "aot-defender")
    with ledger.lock():
        ledger.append(
            kind="refused", action="promote", from_version="11", to_version="12", challenger_sha256="2" * 64,
            champion_sha256="1" * 64, who="somebody-with-a-long-name@a-machine-with-another", why=WHY,
            figures=decision.figures, decision_sha256=decision.sha256,
        )  # fmt: skip
    book = SeriesBook(store, "weekly")
    book.write_plan(EditionPlan(series="weekly", number=1, seed=1, lineage=("version 11", "aot-tiny-vl")))
    book.write_end(
        EditionEnd(
            number=1, campaign="c" * 64, outcome=f"not promoted: {WHY}", version="12", seconds=9000.0, stages=3,
            figures={"strict/clean": 0.9, "worst": 0.5, "strict/attacker_1": 0.5, "strict/attacker_2": 0.7,
                     "strict/adversary_1": 0.65, "flips/attacker_1": 0.125, "flips/semantic": 0.1},
            exam={"clean": 0.9, "semantic": 0.6}, ended_at="2026-11-28T07:31:00",
        )
    )  # fmt: skip
    return place.root


COMMANDS = (
    ["status"], ["history"], ["trend"], ["pool"], ["doctor"], ["store", "gc"], ["store", "verify"],
    ["plan", str(CONFIGS / "paper.toml"), "--peak-tflops", "400"], ["plan", str(CONFIGS / "tiny.toml")],
    ["bench", "verify", "{home}"],
)  # fmt: skip


def run_in_terminal(arguments: list[str]) -> str:
    """The command's output in a terminal of 80 columns."""
    parent, child = pty.openpty()
    environment = os.environ | {"COLUMNS": "80", "LINES": "40", "TERM": "xterm", "NO_COLOR": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", "aot_core", *arguments], stdout=child, stderr=child, stdin=child, env=environment
    )
    os.close(child)
    said = b""
    while True:
        try:
            piece = os.read(parent, 65536)
        except OSError:  # the other end is closed
            break
        if not piece:
            break
        said += piece
    process.wait(timeout=60)
    os.close(parent)
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", said.decode())


def arguments_of(command: list[str], home: Path) -> list[str]:
    given = [part.replace("{home}", str(home)) for part in command]
    return given if command[0] in ("plan", "bench") else [*given, "--home", str(home)]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_nothing_is_cut_at_80_columns_nor_in_a_pipe(command: list[str], home: Path) -> None:
    arguments = arguments_of(command, home)
    shown = run_in_terminal(arguments)
    piped = subprocess.run(
        [sys.executable, "-m", "aot_core", *arguments], capture_output=True, text=True, check=False,
        env={key: value for key, value in os.environ.items() if key != "COLUMNS"},
    ).stdout  # fmt: skip
    for text in (shown, piped):
        assert text.strip() and "Traceback" not in text, text
        assert "…" not in text and "..." not in text, text
    assert max(len(line.rstrip()) for line in shown.splitlines()) <= 80 or command[0] in ("store", "pool", "bench")
    if command[0] in ("history", "trend", "status"):
        for word in WHY.split():
            assert any(word[:5] in text for text in (shown, piped)), word
    if command[0] == "status":
        assert "attacker_round" in shown and "2026-11-23 20:00" in shown


@pytest.mark.parametrize("command", [["status"], ["history"], ["trend"], ["pool"], ["doctor"]], ids=" ".join)
def test_json_is_for_programs(command: list[str], home: Path) -> None:
    result = CliRunner().invoke(app, [*command, "--json", "--home", str(home)])
    told = json.loads(result.stdout)
    if command == ["status"]:
        assert [one["name"] for one in told["campaigns"]] == ["tiny-0", "tiny-1"]
    if command == ["history"]:
        assert told["champion"] == "" or told["champion"] is None
        assert told["entries"][0]["why"] == WHY
    if command == ["trend"]:
        assert told["editions"][0]["end"]["exam"]["semantic"] == 0.6


def test_a_plan_as_json_has_bytes_and_seconds() -> None:
    result = CliRunner().invoke(app, ["plan", str(CONFIGS / "tiny.toml"), "--peak-tflops", "1", "--json"])
    (first, *_) = json.loads(result.stdout)
    assert first["total_memory"] == sum(first["memory"].values()) and first["seconds"] > 0


def test_the_version_is_told() -> None:
    result = CliRunner().invoke(app, ["--version"])
    assert result.exit_code == 0 and re.fullmatch(r"aot \d+\.\d+\S*\n", result.stdout)


def test_the_trends_page_stands_alone(home: Path, tmp_path: Path) -> None:
    page = tmp_path / "trend.html"
    result = CliRunner().invoke(app, ["trend", "--home", str(home), "--html", str(page)])
    assert result.exit_code == 0, result.output
    text = page.read_text()
    assert "Series weekly" in text and "No edition has been promoted yet" in text
    assert text.count("data:image/webp;base64,") == 10 and "http" not in text and "<script" not in text
    figures = "".join(f"<td>{figure}</td>" for figure in ("90.0", "60.0", "90.0", "50.0", "50.0", "65.0", "·", "12.5"))
    assert f"<td>1</td><td>version 11</td>{figures}" in text


def test_a_rollback_stands_in_the_trend(home: Path, tmp_path: Path) -> None:
    """Edition 2 was promoted, and its version taken from the lead later; edition 1's version leads again."""
    store = LocalStore(Home(home).store)
    defenders = [ArtifactRef(uri=f"aot://defender_round/{n * 64}", sha256=n * 64) for n in "12"]
    book = SeriesBook(store, "monthly")
    for number, defender in enumerate(defenders, start=1):
        book.write_plan(EditionPlan(series="monthly", number=number, seed=number, lineage=("aot-tiny-vl",)))
        book.write_end(
            EditionEnd(
                number=number, campaign=str(number) * 64, outcome="promoted: better", version=str(number), model="ours",
                defender=defender, exam={"clean": 0.9, "semantic": 0.5 + number / 10}, ended_at="2026-11-01T07:31:00",
            )
        )  # fmt: skip
    ledger = Ledger(store, "ours")
    with ledger.lock():
        for action, before, after in (("promote", "", "1"), ("promote", "1", "2"), ("rollback", "2", "1")):
            ledger.append(
                kind="done", action=action, from_version=before, to_version=after, who="Ada", why="it lies",
                challenger_sha256=after * 64, champion_sha256=before * 64,
            )  # fmt: skip
    place = ["--home", str(home)]
    told = json.loads(CliRunner().invoke(app, ["trend", "monthly", "--json", *place]).stdout)
    first, second = (line["rolled_back"] for line in told["editions"])
    assert first == "" and re.fullmatch(r"rolled back \d{4}-\d\d-\d\d \d\d:\d\d by Ada: it lies", second)
    shown = CliRunner().invoke(app, ["trend", "monthly", *place]).stdout
    assert "rolled back" in shown and "70.0" in shown
    page = tmp_path / "trend.html"
    CliRunner().invoke(app, ["trend", "monthly", *place, "--html", str(page)])
    text = page.read_text()
    assert "One champion so far (edition 1): 60.0 %" in text and "promoted, rolled back" in text and "it lies" in text


def leaves(command: Any, path: tuple[str, ...] = ("aot",)) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command with its path. Typer brings a click of its own, so that no class can be asked for."""
    inner: dict[str, Any] = getattr(command, "commands", {})
    if not inner:
        yield path, command
    for name, one in inner.items():
        yield from leaves(one, (*path, name))


def test_every_help_has_an_example_that_parses() -> None:
    found = list(leaves(typer.main.get_command(app)))
    assert len(found) > 20
    for path, command in found:
        told = command.help or ""
        shown = re.search(r"Example:\s+(?:aot ui &\s+)?(aot [^\n]+)", told)
        assert shown, f"{' '.join(path)}: --help has no example"
        words = shlex.split(shown[1], comments=True)
        assert tuple(words[: len(path)]) == path, shown[1]
        command.make_context(path[-1], words[len(path) :], resilient_parsing=False)


def test_a_dry_run_says_what_would_run(tmp_path: Path) -> None:
    arguments = ["run", str(CONFIGS / "smoke.toml"), "--home", str(tmp_path / "none"), "--dry-run"]
    result = CliRunner().invoke(app, arguments)
    assert json.loads(result.stdout)["name"] == "smoke"
    assert " 1 of 8  runs      start  prepare_data  (never run on this home)" in result.stderr
    assert result.stderr.endswith("8 of 8 stages would run\n") and not (tmp_path / "none").exists()
