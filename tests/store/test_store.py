"""What every store must do, one suite for all: finished or absent, never in between; what changed is not trusted."""

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from urllib.request import urlopen

import pytest

from aot_core.contracts.artifact import ArtifactRef, StageRecord
from aot_core.store import Store, StoreError
from aot_core.store.gc import collect, find_garbage
from aot_core.store.manifest import manifest_of

RecordMaker = Callable[..., StageRecord]


def test_a_stage_is_found_once_its_record_stands(store: Store, folder: Path, record_of: RecordMaker) -> None:
    record = record_of(store, folder)
    assert store.find("curate", record.key) is None, "put without seal is not finished"
    store.seal(record)
    assert store.find("curate", record.key) == record
    assert (store.fetch(record.artifact) / "inner" / "b.txt").read_text() == "b"
    assert [r.key for r in store.records()] == [record.key]


@pytest.mark.parametrize("contents", [b"tampered", b"x", None], ids=["longer", "as long", "gone"])
def test_a_changed_file_makes_the_stage_unfinished(
    store: Store, folder: Path, record_of: RecordMaker, tamper_with: Callable[..., None], contents: bytes | None
) -> None:
    record = record_of(store, folder)
    store.seal(record)
    tamper_with(store, record, "a.txt", contents)
    assert store.find("curate", record.key) is None
    store.seal(record_of(store, folder))
    assert store.find("curate", record.key) is not None, "running the stage again mends it"
    assert (store.fetch(record.artifact) / "a.txt").read_text() == "a"


def test_an_additional_file_makes_the_stage_unfinished(
    store: Store, folder: Path, record_of: RecordMaker, tamper_with: Callable[..., None]
) -> None:
    record = record_of(store, folder)
    store.seal(record)
    tamper_with(store, record, "smuggled.txt", b"x")
    assert store.find("curate", record.key) is None


def test_a_reference_to_other_contents_is_refused(store: Store, folder: Path, record_of: RecordMaker) -> None:
    ref = record_of(store, folder).artifact
    with pytest.raises(StoreError, match="made again since"):
        store.fetch(ArtifactRef(uri=ref.uri, sha256="0" * 64))
    with pytest.raises(StoreError, match="run its campaign again"):
        store.fetch(ArtifactRef(uri="aot://curate/" + "1" * 64, sha256="0" * 64))


def test_equal_folders_have_equal_hashes_under_any_key(store: Store, folder: Path) -> None:
    first, second = store.put("curate", "a" * 64, folder), store.put("curate", "b" * 64, folder)
    assert first.sha256 == second.sha256 == manifest_of(folder).sha256


def test_an_empty_folder_is_an_artifact_too(store: Store, tmp_path: Path, record_of: RecordMaker) -> None:
    (tmp_path / "empty").mkdir()
    record = record_of(store, tmp_path / "empty")
    store.seal(record)
    assert store.find("curate", record.key) == record
    assert list(store.fetch(record.artifact).iterdir()) == []


def test_a_second_holder_waits_for_the_first(store: Store) -> None:
    order: list[str] = []
    inside, second_at_the_door = threading.Event(), threading.Event()

    def second() -> None:
        inside.wait()
        second_at_the_door.set()
        with store.lock("curate", "k"):
            order.append("second")

    other = threading.Thread(target=second)
    other.start()
    with store.lock("curate", "k"):
        inside.set()
        second_at_the_door.wait()
        time.sleep(2)  # longer than a lease: a holder who lives keeps its lock
        order.append("first")
    other.join(30)
    assert order == ["first", "second"]


def test_keys_are_locked_apart(store: Store) -> None:
    with store.lock("curate", "k"), store.lock("curate", "other"), store.lock("evaluate", "k"):
        pass


def test_a_link_leads_to_the_file(store: Store, folder: Path, record_of: RecordMaker) -> None:
    with urlopen(store.link(record_of(store, folder).artifact, "inner/b.txt", 60)) as answer:
        assert answer.read() == b"b"


def test_collection_keeps_the_lineage_of_a_root_and_what_is_young(
    store: Store, tmp_path: Path, record_of: RecordMaker
) -> None:
    def made(seed: int, started_at: str = "2026-01-01T00:00:00+00:00", **inputs: ArtifactRef) -> StageRecord:
        source = tmp_path / f"source-{seed}"
        source.mkdir()
        (source / "file").write_text(str(seed))
        record = record_of(store, source, seed, inputs, started_at)
        store.seal(record)
        return record

    data = made(0)
    attacker = made(1, dataset=data.artifact)
    champion = made(2, dataset=data.artifact, attackers=attacker.artifact)
    forgotten = made(3, dataset=data.artifact)
    young = made(4, datetime.now(UTC).isoformat())
    garbage = find_garbage(store, [champion.artifact], keep_days=30)
    assert {r.key for r in garbage.kept} == {data.key, attacker.key, champion.key, young.key}
    assert [r.key for r in garbage.unreached] == [forgotten.key]
    assert store.find("curate", forgotten.key) is not None, "finding deletes nothing"
    assert collect(store, garbage.unreached) >= 1
    assert store.find("curate", forgotten.key) is None
    assert {r.key for r in store.records()} == {r.key for r in garbage.kept}
    with pytest.raises(StoreError):
        store.fetch(forgotten.artifact)
    assert (store.fetch(champion.artifact) / "file").read_text() == "2"


def test_what_was_never_sealed_is_swept_once_it_is_old(store: Store, folder: Path, record_of: RecordMaker) -> None:
    unsealed = record_of(store, folder, 1)
    sealed = record_of(store, folder, 2)
    store.seal(sealed)
    assert store.sweep(older_than=3600) == 0
    time.sleep(1.1)  # S3 tells times in whole seconds
    assert store.sweep(older_than=0) >= 2
    assert store.find("curate", sealed.key) == sealed
    with pytest.raises(StoreError):
        store.fetch(unsealed.artifact)
