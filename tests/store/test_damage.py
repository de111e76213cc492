"""Damaged means absent: told in a line, moved and not deleted, made again; whatever it is that was damaged."""

import logging
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from aot_core.commands.cli import app
from aot_core.contracts.artifact import StageRecord
from aot_core.store import Damage, LocalStore, Store, StoreError
from aot_core.store.manifest import manifest_of
from aot_core.store.s3 import S3Store
from aot_core.store.verify import verify

RecordMaker = Callable[..., StageRecord]
Break = Callable[[Path], None]


def _pipe(home: Path) -> None:
    (home / "files" / "a.txt").unlink()
    os.mkfifo(home / "files" / "a.txt")


def _link(target: str, name: str = "files/a.txt") -> Break:
    def damage(home: Path) -> None:
        (home / name).unlink()
        (home / name).symlink_to(target)

    return damage


def _link_to_a_folder(home: Path) -> None:
    (home / "files" / "more").symlink_to("/usr")


def _record_is_a_pipe(home: Path) -> None:
    (home / "record.json").unlink()
    os.mkfifo(home / "record.json")


def _record_of_another(home: Path) -> None:
    text = (home / "record.json").read_text()
    (home / "record.json").write_text(text.replace('"curate"', '"evaluate"'))


def _truncated(name: str) -> Break:
    return lambda home: os.truncate(home / name, 20)


DAMAGES: dict[str, Break] = {
    "record truncated": _truncated("record.json"),
    "record empty": lambda home: os.truncate(home / "record.json", 0),
    "record is a pipe": _record_is_a_pipe,
    "record leads nowhere": _link("/nowhere", "record.json"),
    "record of another stage": _record_of_another,
    "record in no encoding": lambda home: (home / "record.json").write_bytes(b"\xff\xfe\x00{") and None,
    "file gone": lambda home: (home / "files" / "a.txt").unlink(),
    "file truncated": lambda home: os.truncate(home / "files" / "a.txt", 0),
    "file is a pipe": _pipe,
    "link out": _link("/etc/hostname"),
    "link nowhere": _link("/nowhere/at/all"),
    "links in a circle": _link("a.txt"),
    "link to a folder outside": _link_to_a_folder,
}


@pytest.fixture
def local(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


def sealed(store: Store, record_of: RecordMaker, folder: Path, seed: int = 0) -> StageRecord:
    record = record_of(store, folder, seed)
    store.seal(record)
    return record


def home_of(store: LocalStore, record: StageRecord) -> Path:
    return store.root / record.stage / record.key


@pytest.mark.timeout(60)  # a pipe that is read waits for ever
@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_what_is_damaged_is_set_aside_and_made_again(
    local: LocalStore, folder: Path, record_of: RecordMaker, caplog: pytest.LogCaptureFixture, damage: Break
) -> None:
    record, other = sealed(local, record_of, folder), sealed(local, record_of, folder, 1)
    damage(home_of(local, record))
    assert isinstance(local.look("curate", record.key), Damage)
    with caplog.at_level(logging.WARNING):
        assert other in list(local.records()), "the others are listed"
        assert local.find("curate", record.key) is None
    (told,) = [line for line in caplog.messages if "set aside" in line]
    assert told.startswith(f"aot://curate/{record.key}: ") and "\n" not in told
    (aside,) = (local.root / ".damaged" / "curate").iterdir()
    assert aside.name.startswith(record.key) and len(list(aside.iterdir())) == 3, "moved, and nothing deleted"
    assert sealed(local, record_of, folder) == record
    assert local.find("curate", record.key) == record
    assert (local.fetch(record.artifact) / "a.txt").read_text() == "a"


@pytest.mark.parametrize("contents", [None, "", '{"files": [{"path"', '{"files": []}'])
def test_a_manifest_is_written_again_from_files_that_are_the_records(
    local: LocalStore, folder: Path, record_of: RecordMaker, contents: str | None
) -> None:
    for read in (lambda r: local.find("curate", r.key) == r, lambda r: local.fetch(r.artifact).is_dir()):
        record = sealed(local, record_of, folder)
        manifest = home_of(local, record) / "manifest.json"
        whole = manifest.read_bytes()
        manifest.unlink() if contents is None else manifest.write_text(contents)
        if contents != '{"files": []}':
            assert read(record)
        else:
            assert local.find("curate", record.key) == record
        assert manifest.read_bytes() == whole
    assert not (local.root / ".damaged").exists()


def test_a_damaged_artifact_that_is_asked_for_is_told_with_the_way_out(
    local: LocalStore, folder: Path, record_of: RecordMaker
) -> None:
    record = sealed(local, record_of, folder)
    _truncated("record.json")(home_of(local, record))
    (home_of(local, record) / "manifest.json").unlink()
    with pytest.raises(StoreError, match="run its campaign again, which makes what is missing"):
        local.fetch(record.artifact)


def test_what_is_damaged_and_made_again_without_being_looked_for_is_kept(
    local: LocalStore, folder: Path, record_of: RecordMaker
) -> None:
    record = sealed(local, record_of, folder)
    _pipe(home_of(local, record))
    local.seal(record_of(local, folder))
    assert local.find("curate", record.key) == record
    assert len(list((local.root / ".damaged" / "curate").iterdir())) == 1


def test_collection_deletes_nothing_that_is_damaged(local: LocalStore, folder: Path, record_of: RecordMaker) -> None:
    record = sealed(local, record_of, folder)
    _link("/nowhere", "record.json")(home_of(local, record))
    assert local.sweep(older_than=-1) == 0
    assert local.find("curate", record.key) is None
    assert local.sweep(older_than=-1) == 0 and len(list((local.root / ".damaged" / "curate").iterdir())) == 1


def test_a_store_that_may_not_be_written_to_is_read_all_the_same(
    local: LocalStore, folder: Path, record_of: RecordMaker, caplog: pytest.LogCaptureFixture
) -> None:
    record = sealed(local, record_of, folder)
    _truncated("record.json")(home_of(local, record))
    (local.root / ".damaged").write_text("a file in the way, which stops a superuser too")
    assert local.find("curate", record.key) is None
    assert "could not be set aside" in caplog.text


OBJECTS = ("record.json", "{sha}/manifest.json", "{sha}/objects.json")


@pytest.mark.parametrize("contents", [None, b"", b'{"stage": "cur'], ids=["gone", "empty", "truncated"])
@pytest.mark.parametrize("name", OBJECTS)
def test_in_a_bucket_too(
    s3_store: S3Store, folder: Path, record_of: RecordMaker, name: str, contents: bytes | None
) -> None:
    record, other = sealed(s3_store, record_of, folder), sealed(s3_store, record_of, folder, 1)
    home = f"curate/{record.key}/"
    key = home + name.format(sha=record.artifact.sha256)
    s3_store.bucket.put(key, contents) if contents is not None else s3_store.bucket.delete([key])
    assert other in list(s3_store.records())
    assert s3_store.find("curate", record.key) is None
    left = [item.key for item in s3_store.bucket.list(home)]
    if (name, contents) != ("record.json", None):  # nothing tells that from a stage that is being made
        aside = [item.key for item in s3_store.bucket.list(".damaged/")]
        assert left == [] and any(kept.endswith("files/a.txt") for kept in aside)
        assert len(aside) == (5 if contents is not None else 4), "moved, and nothing deleted"
    assert sealed(s3_store, record_of, folder) == record == s3_store.find("curate", record.key)


def test_verify_finds_and_repairs_everything(
    store: Store, folder: Path, record_of: RecordMaker, tamper_with: Callable[..., None]
) -> None:
    records = [sealed(store, record_of, folder, seed) for seed in range(4)]
    assert verify(store).damaged == []
    tamper_with(store, records[0], "a.txt", b"x")
    tamper_with(store, records[1], "inner/b.txt", None)
    found = verify(store)
    assert found.whole == {"curate": 2}
    assert {damage.key for damage, _ in found.damaged} == {records[0].key, records[1].key}
    assert all("set aside" in done for _, done in found.damaged)
    assert verify(store).damaged == [] and verify(store).whole == {"curate": 2}


def test_verify_reads_past_the_cache_and_the_buckets_own_notes(
    s3_store: S3Store, folder: Path, record_of: RecordMaker
) -> None:
    """Bytes that rot and whose notes were made to fit: no listing shows it."""
    record = sealed(s3_store, record_of, folder)
    s3_store.fetch(record.artifact)
    home = f"curate/{record.key}/{record.artifact.sha256}/"
    s3_store.bucket.put(home + "files/a.txt", b"b")
    s3_store.bucket.put(home + "objects.json", s3_store._noted(home))
    assert s3_store.find("curate", record.key) == record
    ((damage, _),) = verify(s3_store).damaged
    assert "rotten" in damage.why and s3_store.find("curate", record.key) is None


def test_the_commands_name_what_is_damaged(local: LocalStore, folder: Path, record_of: RecordMaker) -> None:
    whole, damaged = sealed(local, record_of, folder), sealed(local, record_of, folder, 1)
    _truncated("record.json")(home_of(local, damaged))
    arguments = ["--store", str(local.root), "--home", str(local.root.parent / "home")]
    listed = CliRunner().invoke(app, ["pool", *arguments])
    assert listed.exit_code == 0, listed.output
    said = CliRunner().invoke(app, ["store", "verify", *arguments])
    assert said.exit_code == 1 and f"aot://curate/{damaged.key}: its record cannot be read" in said.output
    again = CliRunner().invoke(app, ["store", "verify", *arguments])
    assert again.exit_code == 0 and local.find("curate", whole.key) == whole


def test_a_source_folder_with_a_link_that_leads_nowhere_is_refused_by_name(folder: Path) -> None:
    (folder / "gone").symlink_to("/nowhere")
    with pytest.raises(ValueError, match="link out of"):
        manifest_of(folder)
    (folder / "gone").unlink()
    (folder / "gone").symlink_to("not here")
    with pytest.raises(ValueError, match="a link that leads nowhere"):
        manifest_of(folder)
    (folder / "gone").unlink()
    os.mkfifo(folder / "pipe")
    with pytest.raises(ValueError, match="a pipe, a socket or a device"):
        manifest_of(folder)


def test_a_ledger_entry_is_never_set_aside(tmp_path: Path) -> None:
    """Nobody could make it again, and without it the ledger would end one entry earlier."""
    from aot_core.store.ledger import Ledger, LedgerError

    store = LocalStore(tmp_path / "store")
    ledger = Ledger(store, "aot-defender")
    fields = {"kind": "done", "action": "promote", "from_version": "1", "to_version": "2", "who": "me", "why": "better"}
    with ledger.lock():
        ledger.append(**fields)
        ledger.append(**fields)
    last = max(store.records(), key=lambda record: record.outputs["number"])
    manifest = home_of(store, last) / "manifest.json"
    manifest.unlink()
    assert len(ledger.entries()) == 2, "which is mended"
    _truncated("files/entry.json")(home_of(store, last))
    with pytest.raises(LedgerError, match="entry 2 is missing or was changed"):
        ledger.entries()
    ((_, done),) = verify(store).damaged
    assert "restore it from the store's backup" in done and home_of(store, last).is_dir()
    assert isinstance(store.look(last.stage, last.key), Damage)


def test_nor_is_an_entry_of_a_series(tmp_path: Path) -> None:
    from aot_core.store.entries import read_entry, write_entry

    store = LocalStore(tmp_path / "store")
    record = write_entry(store, "promotion", {"name": "x"}, "{}", {})
    (home_of(store, record) / "manifest.json").unlink()
    assert read_entry(store, "promotion", {"name": "x"}) == (record, b"{}")
    _truncated("record.json")(home_of(store, record))
    with pytest.raises(StoreError, match="restore it from the store's backup"):
        read_entry(store, "promotion", {"name": "x"})
    assert read_entry(store, "promotion", {"name": "y"}) is None
