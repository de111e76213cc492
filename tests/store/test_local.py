"""The local store: finished or absent, never in between; what was changed is not trusted."""

import multiprocessing
import time
from pathlib import Path

import pytest

from aot_core.contracts.artifact import ArtifactRef, StageIdentity, StageRecord
from aot_core.store import LocalStore, StoreError, open_store


def make_identity(seed: int = 0) -> StageIdentity:
    return StageIdentity(stage="curate", version=1, config={"seed": seed}, inputs={})


def make_record(store: LocalStore, folder: Path, seed: int = 0) -> StageRecord:
    identity = make_identity(seed)
    return StageRecord(
        stage="curate",
        key=identity.key,
        identity=identity,
        artifact=store.put("curate", identity.key, folder),
        outputs={"kept": 3, "funnel": {"valid": 5}, "word": "x"},
        seconds=1.0,
        device="cpu",
        git_commit="",
        image_digest="",
        packages={},
        started_at="2026-01-01T00:00:00+00:00",
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "made"
    (folder / "inner").mkdir(parents=True)
    (folder / "a.txt").write_text("a")
    (folder / "inner" / "b.txt").write_text("b")
    return folder


def test_a_stage_is_found_once_its_record_stands(tmp_path: Path, folder: Path) -> None:
    store = LocalStore(tmp_path / "store")
    record = make_record(store, folder)
    assert store.find("curate", record.key) is None, "put without seal is not finished"
    store.seal(record)
    assert store.find("curate", record.key) == record
    assert (store.fetch(record.artifact) / "inner" / "b.txt").read_text() == "b"


def test_a_changed_file_makes_the_stage_unfinished(tmp_path: Path, folder: Path) -> None:
    store = LocalStore(tmp_path / "store")
    record = make_record(store, folder)
    store.seal(record)
    (store.fetch(record.artifact) / "a.txt").write_text("tampered")
    assert store.find("curate", record.key) is None
    store.seal(make_record(store, folder))
    assert store.find("curate", record.key) is not None, "running the stage again mends it"


def test_a_reference_to_other_contents_is_refused(tmp_path: Path, folder: Path) -> None:
    store = LocalStore(tmp_path / "store")
    ref = store.put("curate", make_identity().key, folder)
    with pytest.raises(StoreError, match="made again since"):
        store.fetch(ArtifactRef(uri=ref.uri, sha256="0" * 64))
    with pytest.raises(StoreError, match="run the stage"):
        store.fetch(ArtifactRef(uri="aot://curate/" + "1" * 64, sha256="0" * 64))


def test_equal_folders_have_equal_hashes_wherever_they_lie(tmp_path: Path, folder: Path) -> None:
    first = LocalStore(tmp_path / "one").put("curate", "a" * 64, folder)
    second = LocalStore(tmp_path / "two").put("curate", "b" * 64, folder)
    assert first.sha256 == second.sha256


def test_a_link_out_of_the_folder_is_refused(tmp_path: Path, folder: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("x")
    # copytree follows links, so what would be stored is a copy; a source folder is hashed in place and must refuse.
    from aot_core.store.manifest import manifest_of

    (folder / "link").symlink_to(secret)
    with pytest.raises(ValueError, match="link out of"):
        manifest_of(folder)


def test_metrics_are_the_numbers_of_the_outputs(tmp_path: Path, folder: Path) -> None:
    record = make_record(LocalStore(tmp_path / "store"), folder)
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
