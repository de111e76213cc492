import os
import subprocess
import sys
from pathlib import Path

import pytest

from aot_core.store import LocalStore
from aot_core.store.ledger import Ledger, LedgerError

FIELDS = {"kind": "done", "action": "promote", "from_version": "1", "to_version": "2", "who": "me", "why": "better"}


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    ledger = Ledger(LocalStore(tmp_path), "aot-defender")
    with ledger.lock():
        for number in (1, 2, 3):
            ledger.append({"decision.json": f"{{}}{number}"}, **FIELDS)
    return ledger


def folder_of(ledger: Ledger, number: int) -> Path:
    record = ledger.store.find("promotion", ledger._identity(number).key)
    assert record is not None
    return ledger.store.fetch(record.artifact)


def test_entries_are_chained_and_found_again(ledger: Ledger, tmp_path: Path) -> None:
    entries = Ledger(LocalStore(tmp_path), "aot-defender").entries()
    assert [entry.number for entry in entries] == [1, 2, 3]
    assert [entry.previous for entry in entries] == ["", entries[0].sha256, entries[1].sha256]
    assert ledger.file(entries[1], "decision.json") == "{}2" and ledger.file(entries[1], "page.html") is None
    assert Ledger(LocalStore(tmp_path), "another").entries() == []


def test_a_changed_or_dropped_entry_shows(ledger: Ledger) -> None:
    path = folder_of(ledger, 2) / "entry.json"
    path.write_text(path.read_text().replace('"me"', '"somebody else"'))
    with pytest.raises(LedgerError, match="entry 2 is missing or was changed"):
        ledger.entries()


def test_an_entry_that_was_swapped_whole_shows(ledger: Ledger, tmp_path: Path) -> None:
    """Even where every hash in the store was made to fit again."""
    forged = Ledger(LocalStore(tmp_path / "forged"), "aot-defender")
    with forged.lock():
        forged.append(**{**FIELDS, "who": "somebody else"})
    record = forged.store.find("promotion", forged._identity(1).key)
    assert record is not None
    ledger.store.put("promotion", record.key, forged.store.fetch(record.artifact))
    ledger.store.seal(record)
    with pytest.raises(LedgerError, match="entry 2 does not follow entry 1"):
        ledger.entries()


def test_nothing_is_appended_without_the_lock(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="append under lock"):
        Ledger(LocalStore(tmp_path), "aot-defender").append(**FIELDS)


WRITE = """
import sys
from aot_core.store import LocalStore
from aot_core.store.ledger import Ledger
ledger = Ledger(LocalStore(sys.argv[1]), "m")
with ledger.lock():
    ledger.append(kind="done", action="promote", from_version="", to_version="1", who="Zoë", why="größer – besser")
"""


def test_an_entry_is_the_same_bytes_in_every_locale(tmp_path: Path) -> None:
    """A worker may run where Python takes another encoding than UTF-8 for granted."""
    script = tmp_path / "write.py"
    script.write_text(WRITE, encoding="utf-8")
    plain = os.environ | {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path / "store")],
        env=plain | {"PYTHONPATH": str(Path(__file__).parents[2])}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (entry,) = Ledger(LocalStore(tmp_path / "store"), "m").entries()
    assert (entry.who, entry.why) == ("Zoë", "größer – besser")
