"""The alias and the ledger: refused, promoted, rolled back, two at once, killed between any two steps."""

import os
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from aot_core.contracts.promotion import LedgerEntry
from aot_core.promotion.commands import champion_by
from aot_core.promotion.transaction import (
    Promoter,
    PromotionError,
    StaleDecisionError,
    attempt_number,
    whoami,
)
from aot_core.store import LocalStore
from aot_core.store.ledger import Ledger
from aot_core.tracking import registry
from aot_core.tracking.smoke import SmokeError
from tests.promotion.conftest import InProcessSmoke, copy_model, decision, loads, with_smoke

ROOT = Path(__file__).parents[2]
STEPS = ("begun", "answered", "intended", "moved", "answered again", "done")
CHAMPION = "models:/aot-defender@champion"


def kinds(promoter: Promoter) -> list[str]:
    return [entry.kind for entry in promoter.ledger.entries()]


def test_a_good_one_is_promoted_and_a_bad_one_is_not(promoter: Promoter) -> None:
    first = promoter.promote(decision(1), "the first")
    assert first is not None and (first.from_version, first.to_version, first.kind) == ("", "1", "done")
    registry.set_alias(promoter.uri, registry.CHALLENGER, "2")
    with pytest.raises(PromotionError, match="the gate refused version 2: worse"):
        promoter.promote(decision(2, 1, promote=False, reason="worse"), "")
    assert promoter.champion() == "1" and kinds(promoter) == ["intent", "done"]
    promoter.promote(decision(2, 1), "better")
    assert promoter.champion() == "2" and loads(promoter.uri, CHAMPION) == "two"
    assert registry.get_alias(promoter.uri, registry.CHALLENGER) is None, "the champion challenges nobody"
    last = promoter.ledger.entries()[-1]
    assert (last.who, last.why, last.figures["challenger/worst"]) == ("tester", "better", 0.8)
    assert promoter.ledger.file(promoter.ledger.entries()[-2], "decision.json") is not None


def test_it_is_shown_in_mlflow(promoter: Promoter) -> None:
    from mlflow import MlflowClient

    promoter.promote(decision(1), "the first")
    tags = MlflowClient(promoter.uri).get_registered_model("aot-defender").tags
    assert "promote done: none -> 1 by tester: the first" in tags["aot.ledger.0002"]


def test_promoting_twice_is_promoting_once(promoter: Promoter) -> None:
    promoter.promote(decision(1), "first")
    assert promoter.promote(decision(1), "again") is None
    assert kinds(promoter) == ["intent", "done"]
    assert promoter.note("refused", decision(2, 1), "no") is not None
    assert promoter.note("refused", decision(2, 1), "no") is None


def test_a_decision_about_an_earlier_champion_is_stale(promoter: Promoter) -> None:
    promoter.promote(decision(1), "first")
    promoter.promote(decision(2, 1), "better")
    with pytest.raises(StaleDecisionError, match="compared with version 1, and by now version 2 leads"):
        promoter.promote(decision(3, 1), "better than the first")
    assert promoter.champion() == "2"


def test_a_version_that_does_not_load_never_leads(promoter: Promoter) -> None:
    promoter.promote(decision(1), "first")
    with pytest.raises(SmokeError, match="weights are gone"):
        promoter.promote(decision(4, 1), "better, they say")
    assert promoter.champion() == "1" and loads(promoter.uri, CHAMPION) == "one"
    assert kinds(promoter)[-1] == "refused" and "weights are gone" in promoter.ledger.entries()[-1].why


def test_one_that_fails_behind_the_alias_is_rolled_back(promoter: Promoter) -> None:
    broken = with_smoke(promoter, lambda address: address == CHAMPION)
    with pytest.raises(SmokeError):
        broken.promote(decision(1), "first")
    assert promoter.champion() == "", "nobody led before"
    promoter.promote(decision(1), "first")
    with pytest.raises(SmokeError):
        broken.promote(decision(2, 1), "better")
    assert promoter.champion() == "1" and kinds(promoter)[-2:] == ["intent", "undone"]


def test_rollback(promoter: Promoter) -> None:
    with pytest.raises(PromotionError, match="knows of no version that led before"):
        promoter.rollback(None, "")
    promoter.promote(decision(1), "first")
    promoter.promote(decision(2, 1), "better")
    promoter.promote(decision(3, 2), "better still")
    assert promoter.rollback(None, "users complain").to_version == "2"
    assert promoter.champion() == "2"
    # It stays rolled back, until somebody says otherwise by name.
    with pytest.raises(PromotionError, match=r"was rolled back .*users complain"):
        promoter.promote(decision(3, 2), "tonight's campaign again")
    promoter.promote(decision(3, 2), "it was the network", "force")
    assert promoter.rollback("1", "back to the roots").from_version == "3"
    with pytest.raises(PromotionError, match="has no version 9"):
        promoter.rollback("9", "")
    with pytest.raises(PromotionError, match="leads already"):
        promoter.rollback("1", "")
    with pytest.raises(PromotionError, match=r"version 4 never led.*aot promote --version 4"):
        promoter.rollback("4", "to one that no gate has seen")
    with pytest.raises(SmokeError):
        with_smoke(promoter, lambda _: True).rollback("2", "to one that is broken by now")
    assert promoter.champion() == "1"


def test_others_are_told_in_order_when_the_ledger_is_free_again(promoter: Promoter) -> None:
    root = promoter.ledger.store.root  # pyright: ignore[reportAttributeAccessIssue] - a LocalStore
    heard: list[str] = []

    def notify(entry: LedgerEntry) -> None:
        """A receiver that answers only after somebody else has had the ledger."""
        had = threading.Event()

        def take() -> None:
            with Ledger(LocalStore(root), "aot-defender").lock():
                had.set()

        threading.Thread(target=take, daemon=True).start()
        heard.append(f"{entry.kind} {entry.to_version}" if had.wait(20) else "the ledger is held")

    telling = replace(promoter, notify=notify)
    telling.promote(decision(1), "first")
    assert heard == ["intent 1", "done 1"]
    with pytest.raises(SmokeError):
        telling.promote(decision(4, 1), "better, they say")
    assert heard[2:] == ["refused 4"], "what was raised keeps nothing back"
    telling.note("refused", decision(2, 1), "no")
    assert heard[3:] == ["refused 2"]

    class KilledError(BaseException):
        pass

    def kill(name: str) -> None:
        if name == "moved":
            raise KilledError

    with pytest.raises(KilledError):  # nobody heard of the intent: the process died
        replace(promoter, step=kill).promote(decision(2, 1), "better")
    telling.recover()
    assert heard[4:] == ["intent 2", "done 2"]
    assert telling.recover() is None and len(heard) == 6


def test_of_two_at_once_exactly_one_wins(promoter: Promoter) -> None:
    promoter.promote(decision(1), "first")
    outcomes: list[str] = []
    barrier = threading.Barrier(2)

    def promote(version: int) -> None:
        mine = replace(promoter, ledger=Ledger(LocalStore(promoter.ledger.store.root), "aot-defender"))  # pyright: ignore
        barrier.wait()
        try:
            outcomes.append("won" if mine.promote(decision(version, 1), f"number {version}") else "already")
        except StaleDecisionError:
            outcomes.append("stale")

    threads = [threading.Thread(target=promote, args=(version,)) for version in (2, 3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["stale", "won"]
    assert kinds(promoter) == ["intent", "done"] * 2
    assert promoter.champion() == promoter.ledger.entries()[-1].to_version


KILLED = """
import os, signal, sys
from dataclasses import replace
import mlflow.pyfunc, pandas  # once, before the forks; no database is opened here
from aot_core.promotion.transaction import Promoter
from aot_core.store import LocalStore
from aot_core.store.ledger import Ledger
from aot_core.tracking import registry
from tests.promotion.conftest import InProcessSmoke, decision

uri, folder, *steps = sys.argv[1:]
for step in steps:
    if os.fork() == 0:
        def kill(name):
            if name == step:
                os.kill(os.getpid(), signal.SIGKILL)
        model = step.replace(" ", "-")
        promoter = Promoter(uri, Ledger(LocalStore(folder), model), lambda: InProcessSmoke(uri), who="victim")
        promoter.promote(decision(1, model=model), "first")
        registry.set_alias(uri, registry.CHALLENGER, "2", model)
        replace(promoter, step=kill).promote(decision(2, 1, model=model), "better")
        os._exit(0)
    _, status = os.wait()
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL, (step, status)
"""


@pytest.fixture(scope="module")
def killed(uri: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store after six promotions of 2 in place of 1, each of another model, each killed after another step."""
    folder = tmp_path_factory.mktemp("killed")
    for step in STEPS:
        copy_model(uri, step.replace(" ", "-"))
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", KILLED, uri, str(folder), *STEPS]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize("step", STEPS)
def test_killed_after_any_step_the_alias_loads_and_the_ledger_tells_the_truth(
    killed: Path, uri: str, step: str
) -> None:
    model = step.replace(" ", "-")
    promoter = Promoter(uri, Ledger(LocalStore(killed), model), lambda: InProcessSmoke(uri), who="heir")
    moved = step in ("moved", "answered again", "done")
    # As it was left: what leads loads.
    assert promoter.champion() == ("2" if moved else "1")
    assert loads(uri, f"models:/{model}@champion") == ("two" if moved else "one")
    # The next one to take the lock settles it, once.
    settled = promoter.recover()
    expected = {"intended": "abandoned", "moved": "done", "answered again": "done"}.get(step)
    assert (settled.kind if settled else None) == expected
    assert promoter.recover() is None
    assert champion_by(promoter.ledger.entries()) == promoter.champion() == ("2" if moved else "1")
    challenger = registry.get_alias(uri, registry.CHALLENGER, model)
    assert (challenger is None) == moved, "the champion challenges nobody"
    # And then the promotion ends as it would have.
    promoter.promote(decision(2, 1, model=model), "better")
    assert promoter.champion() == "2" and kinds(promoter)[-1] == "done"
    assert kinds(promoter).count("done") == 2


def test_what_was_left_pointing_at_a_broken_model_is_moved_back(promoter: Promoter) -> None:
    promoter.promote(decision(1), "first")

    class KilledError(Exception):
        pass

    def kill(name: str) -> None:
        if name == "moved":
            raise KilledError

    with pytest.raises(KilledError):
        replace(promoter, step=kill).promote(decision(2, 1), "better")
    assert promoter.champion() == "2"
    settled = with_smoke(promoter, lambda address: address == CHAMPION).recover()
    assert settled is not None and settled.kind == "undone" and promoter.champion() == "1"


def test_killed_after_moving_back_the_ledger_does_not_say_that_nothing_moved(promoter: Promoter) -> None:
    promoter.promote(decision(1), "first")

    class KilledError(Exception):
        pass

    def kill(name: str) -> None:
        if name == "moved back":
            raise KilledError

    broken = replace(with_smoke(promoter, lambda address: address == CHAMPION), step=kill)
    with pytest.raises(KilledError):
        broken.promote(decision(2, 1), "better")
    settled = promoter.recover()
    assert settled is not None and settled.kind == "abandoned" and promoter.champion() == "1"
    assert settled.why == "its process died, and the alias is where it was: version 1 leads"


def test_tries_are_counted_by_challenger(promoter: Promoter) -> None:
    promoter.promote(decision(1), "first")
    promoter.note("refused", decision(2, 1, promote=False), "worse")
    entries = promoter.ledger.entries()
    assert attempt_number(entries, "3" * 64, "1" * 64) == 2
    assert attempt_number(entries, "2" * 64, "1" * 64) == 1, "judged again it keeps its number"
    assert attempt_number(entries, "3" * 64, "2" * 64) == 1, "another champion, another count"


def test_a_user_without_a_name_has_an_account_of_the_ledger_too(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AOT_ACTOR", "LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 54_321)  # what a container may run as
    assert whoami().startswith("unknown@")
