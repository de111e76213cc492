"""Who led, by the ledger: rolled back twice, in a registry made anew, moved or deleted behind the ledger's back."""

from dataclasses import replace
from pathlib import Path

import pytest
from mlflow import MlflowClient
from typer.testing import CliRunner

from aot_core.commands.cli import app
from aot_core.contracts.promotion import Decision, GateSettings, GateTest, HardStop, LedgerEntry
from aot_core.promotion import commands
from aot_core.promotion.leaders import Leader, discrepancy, leaders, rolled_back
from aot_core.promotion.remedy import remedy
from aot_core.promotion.transaction import Promoter, PromotionError, StaleDecisionError
from aot_core.store import LocalStore
from aot_core.store.ledger import Ledger
from aot_core.tracking import registry
from aot_core.tracking.mlflow_tracking import ARTIFACT_SHA_TAG
from tests.promotion.conftest import decision


class Answers:
    """A smoke test that every model passes: these tests are about numbers and hashes."""

    def __enter__(self) -> "Answers":
        return self

    def __exit__(self, *_: object) -> None: ...

    def check(self, address: str) -> str:
        return address


@pytest.fixture
def promoter(tmp_path: Path) -> Promoter:
    """An empty registry and an empty ledger in a home."""
    (tmp_path / "mlflow").mkdir()
    uri = f"sqlite:///{tmp_path}/mlflow/mlflow.db"
    promoter = Promoter(uri, Ledger(LocalStore(tmp_path / "store"), "aot-defender"), Answers, who="tester")
    client(promoter).create_registered_model("aot-defender")
    return promoter


def client(promoter: Promoter) -> MlflowClient:
    registry.get_champion(promoter.uri)  # the database is made by the project
    return MlflowClient(promoter.uri, registry_uri=promoter.uri)


def register(promoter: Promoter, *letters: str, **tags: str) -> None:
    for letter in letters:
        all_tags = {ARTIFACT_SHA_TAG: letter * 64, **tags}
        client(promoter).create_model_version("aot-defender", source="file:///nowhere", tags=all_tags)


def about(challenger: str, sha: str, champion: str = "", champion_sha: str = "") -> Decision:
    shas = {"challenger_sha256": sha * 64, "champion": champion, "champion_sha256": champion_sha * 64}
    return decision(1).model_copy(update={"challenger": challenger, **shas})


def promote_all(promoter: Promoter, letters: str) -> None:
    """Each in place of the one before."""
    for number, letter in enumerate(letters, start=1):
        before = (str(number - 1), letters[number - 2]) if number > 1 else ("", "")
        promoter.promote(about(str(number), letter, *before), "better")


def anew(promoter: Promoter) -> None:
    """The registered model deleted on MLflow's pages and made again: versions are numbered from 1."""
    client(promoter).delete_registered_model("aot-defender")
    client(promoter).create_registered_model("aot-defender")


def without_hashes(promoter: Promoter, folder: Path) -> Promoter:
    """The same history as an early ledger tells it: rollbacks name numbers alone, promotions no hash either."""
    old = replace(promoter, ledger=Ledger(LocalStore(folder), "aot-defender"))
    with old.ledger.lock():
        for entry in promoter.ledger.entries():
            fields = entry.model_dump(exclude={"number", "previous", "model", "when", "decision_sha256"})
            old.ledger.append(**{**fields, "challenger_sha256": "", "champion_sha256": ""})
    return old


def test_rolled_back_twice_it_goes_back_twice(promoter: Promoter, tmp_path: Path) -> None:
    register(promoter, *"abcd")
    promote_all(promoter, "abc")
    assert promoter.rollback(None, "3 is bad").to_version == "2"
    assert promoter.rollback(None, "2 is bad as well").to_version == "1"
    with pytest.raises(PromotionError, match="no version that led before version 1 and was not rolled back"):
        promoter.rollback(None, "")
    assert promoter.champion() == "1"
    # An early ledger says the same.
    old = without_hashes(promoter, tmp_path / "old")
    assert leaders(old.ledger.entries()) == [Leader("1", "")]
    assert rolled_back(old.ledger.entries(), Leader("3", "c" * 64)) is not None
    # What leads after a rollback has that one before it, and not what was rolled back.
    promoter.promote(about("4", "d", "1", "a"), "better")
    assert promoter.rollback(None, "").to_version == "1"
    promoter.promote(about("3", "c", "1", "a"), "it was not so bad", "force")
    assert promoter.rollback(None, "it was").to_version == "1"


def test_in_a_registry_made_anew_numbers_mean_nothing_and_hashes_do(promoter: Promoter) -> None:
    register(promoter, *"abc")
    promote_all(promoter, "ab")
    anew(promoter)
    register(promoter, *"xyb")
    assert "version 3 leads, and the alias is gone" in discrepancy(
        promoter.uri, "aot-defender", promoter.ledger.entries()
    )
    with pytest.raises(PromotionError, match="nothing leads, and by the ledger version 3 does"):
        promoter.rollback(None, "")
    with pytest.raises(PromotionError, match="version 2 never led"):
        promoter.rollback("2", "it has the number of one that did")
    # No decision about another artifact of that number counts.
    with pytest.raises(PromotionError, match="no gate has judged version 2"):
        commands.promote(promoter, "2", "", force=False)
    with pytest.raises(StaleDecisionError, match="another artifact by now"):
        promoter.promote(about("2", "b"), "judged before")
    assert promoter.rollback("3", "where it was").to_version == "3"
    assert promoter.champion() == "3"
    with pytest.raises(PromotionError, match=r"version 1, which led before, is gone .* with `aot promote`"):
        promoter.rollback(None, "")
    register(promoter, "a")
    assert promoter.rollback(None, "it is here again").to_version == "4", "the hash finds it"
    with pytest.raises(StaleDecisionError, match="compared with version 4, and by now version 4 leads"):
        promoter.promote(about("1", "x", "4", "z"), "compared with another version 4")


def test_a_champion_that_is_gone_is_told(promoter: Promoter, tmp_path: Path) -> None:
    register(promoter, *"abc")
    promote_all(promoter, "abc")
    client(promoter).delete_model_version("aot-defender", "3")
    told = discrepancy(promoter.uri, "aot-defender", promoter.ledger.entries())
    assert "version 3, which leads by the ledger, is gone from MLflow's registry, and nothing leads" in told
    said = CliRunner().invoke(app, ["history", "--home", str(tmp_path)], env={"COLUMNS": "300"})
    assert said.exit_code == 1 and "is gone from MLflow's registry" in said.stderr
    client(promoter).delete_model_version("aot-defender", "2")
    with pytest.raises(PromotionError, match=r"version 2, which led before, is gone .* an earlier one \(1\) with --to"):
        promoter.rollback(None, "")
    assert promoter.rollback("1", "what is left").to_version == "1"
    assert discrepancy(promoter.uri, "aot-defender", promoter.ledger.entries()) == ""
    assert CliRunner().invoke(app, ["history", "--home", str(tmp_path)]).exit_code == 0


def test_an_alias_that_was_moved_behind_the_ledgers_back_is_told(promoter: Promoter, tmp_path: Path) -> None:
    register(promoter, *"ab")
    promote_all(promoter, "a")
    registry.set_alias(promoter.uri, "champion", "2")
    said = CliRunner().invoke(app, ["history", "--home", str(tmp_path)], env={"COLUMNS": "300"})
    assert said.exit_code == 1
    assert "by the ledger version 1 leads, and the alias points at version 2" in said.stderr
    assert "`aot rollback --to 1 --why TEXT` puts it back" in said.stderr
    promoter.rollback("1", "somebody clicked")
    assert CliRunner().invoke(app, ["history", "--home", str(tmp_path)]).exit_code == 0
    registry.remove_alias(promoter.uri, "champion")
    assert "the alias is gone" in discrepancy(promoter.uri, "aot-defender", promoter.ledger.entries())


def test_a_forced_promotion_and_a_rollback_keep_their_figures(
    promoter: Promoter, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    register(promoter, "a", **{"aot.metric.worst": "0.61", "aot.metric.strict.clean": "0.875"})
    register(promoter, "b", **{"aot.metric.worst": "0.5", "aot.metric.strict.clean": "0.75"})
    commands.promote(promoter, "1", "the first", force=True)
    commands.promote(promoter, "2", "the second", force=True)
    promoter.rollback(None, "regretted")
    commands.print_history(promoter)
    lines = capsys.readouterr().out.splitlines()
    for word, clean, worst in (
        ("the first", "87.5", "61.0"),
        ("the second", "75.0", "50.0"),
        ("regretted", "87.5", "61.0"),
    ):
        (*_, line) = [line for line in lines if word in line]
        assert clean in line and worst in line, line


def line(name: str, n: int, difference: float | None, low: float | None, margin: float | None = 0.0) -> GateTest:
    return GateTest(name=name, what="", passed=False, n=n, difference=difference, low=low, margin=margin, note="no")


def test_a_refusal_names_what_helps(promoter: Promoter) -> None:
    refused = decision(2, 1, promote=False, reason="not_worse/clean: 8 common questions")
    few = refused.model_copy(update={"tests": (line("not_worse/clean", 8, None, None),)})
    assert "not_worse/clean has 8 and needs 100 (evaluate.limit" in remedy(few)
    # 0.02 better, and an interval that reaches 0.04 below: twice as narrow needs four times as many.
    close = refused.model_copy(update={"tests": (line("superior/worst_case", 200, 0.02, -0.02),)})
    assert "about 800 would" in remedy(close)
    lossless = refused.model_copy(update={"tests": (line("not_worse/clean", 200, 0.0, -0.05, -0.025),)})
    assert "about 800 would" in remedy(lossless)
    worse = refused.model_copy(update={"tests": (line("superior/worst_case", 500, -0.1, -0.2),)})
    assert "train it further" in remedy(worse)
    stopped = close.model_copy(update={"stops": (HardStop(name="unreadable", stopped=True, told="10 %"),)})
    assert remedy(stopped) == "", "no question more mends that"
    register(promoter, *"12")
    promoter.promote(about("1", "1"), "first")
    with pytest.raises(PromotionError, match=r"refused version 2: .*about 800 would.*--force --why TEXT. overrides"):
        promoter.promote(close, "")
    assert close.settings == GateSettings()


def test_an_entry_without_hashes_is_read() -> None:
    entry = LedgerEntry(
        number=1, previous="", kind="done", action="promote", model="m", from_version="", to_version="7", who="me",
        when="2026-01-01T00:00:00+00:00", why="first",
    )  # fmt: skip
    assert leaders([entry]) == [Leader("7", "")]
    assert Leader("7", "").same(Leader("7", "a" * 64)) and not Leader("7", "b").same(Leader("7", "a"))
