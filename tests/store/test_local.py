"""The store in a folder, and what is said of stores that there are not."""

import multiprocessing
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from aot_core.contracts.artifact import StageRecord
from aot_core.store import LocalStore, StoreError, open_store
from aot_core.store.manifest import manifest_of


def test_a_link_out_of_the_folder_is_refused(tmp_path: Path, folder: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("x")
    # copytree follows links, so what would be stored is a copy; a source folder is hashed in place and must refuse.
    (folder / "link").symlink_to(secret)
    with pytest.raises(ValueError, match="link out of"):
        manifest_of(folder)


def test_what_is_put_again_stays_for_those_who_read_it(tmp_path: Path, folder: Path) -> None:
    store = LocalStore(tmp_path / "store")
    ref = store.put("curate", "0" * 64, folder)
    read = store.fetch(ref)
    file = next(path for path in read.rglob("*") if path.is_file())
    before = file.stat().st_ino
    assert store.put("curate", "0" * 64, folder) == ref
    assert file.stat().st_ino == before
    file.write_bytes(b"damaged")
    assert store.put("curate", "0" * 64, folder) == ref
    assert file.read_bytes() != b"damaged"


def test_metrics_are_the_numbers_of_the_outputs(
    tmp_path: Path, folder: Path, record_of: Callable[..., StageRecord]
) -> None:
    record = record_of(LocalStore(tmp_path / "store"), folder)
    assert record.metrics == {"kept": 3.0, "funnel/valid": 5.0}


def test_an_unknown_scheme_is_named(tmp_path: Path) -> None:
    assert isinstance(open_store(f"file://{tmp_path}"), LocalStore)
    with pytest.raises(StoreError, match="ftp://"):
        open_store("ftp://somewhere/else")


def _hold(root: Path, key: str, held: "multiprocessing.synchronize.Event") -> None:
    with LocalStore(root).lock("curate", key):
        held.set()
        time.sleep(60)


def test_the_lock_of_a_killed_holder_is_free(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    held = context.Event()
    holder = context.Process(target=_hold, args=(tmp_path, "k", held))
    holder.start()
    assert held.wait(60)
    holder.kill()
    holder.join()
    with LocalStore(tmp_path).lock("curate", "k"):
        pass


def test_a_copy_that_takes_hours_is_not_taken_for_a_dead_one(tmp_path: Path) -> None:
    """A large file grows in a folder whose own time stands still."""
    store = LocalStore(tmp_path)
    alive, dead = tmp_path / "curate" / ".incoming-alive", tmp_path / "curate" / ".incoming-dead"
    for folder in (alive, dead):
        (folder / "files").mkdir(parents=True)
        (folder / "files" / "model").write_bytes(b"half")
    long_ago = time.time() - 100_000
    for path in (dead / "files" / "model", dead / "files", dead, alive / "files", alive):
        os.utime(path, (long_ago, long_ago))
    with store.lock("curate", "k"):
        assert alive.is_dir() and not dead.exists()
    assert store.sweep(older_than=3600) == 0 and alive.is_dir()
    os.utime(alive / "files" / "model", (long_ago, long_ago))
    assert store.sweep(older_than=3600) == 4 and not alive.exists()
