"""A real S3 server that is away, silent, full or asked by two at once: `make test-s3`."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from aot_core.contracts.artifact import StageRecord
from aot_core.contracts.store import S3Settings
from aot_core.store import StoreError
from aot_core.store.s3 import S3Store
from tests.store.weed import Weed, find_weed

RecordMaker = Callable[..., StageRecord]
ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.s3, pytest.mark.timeout(1500)]


@pytest.fixture
def program() -> str:
    found = find_weed()
    assert found, "no `weed` on the path; `make test-s3` installs it"
    return found


@pytest.fixture
def weed(program: str, tmp_path: Path) -> Iterator[Weed]:
    server = Weed(program, tmp_path / "weed")
    server.start()
    yield server
    server.stop()


def opened(weed: Weed, tmp_path: Path, patience: float) -> S3Store:
    settings = S3Settings(endpoint_url=weed.url, multipart_mib=5, patience=patience, lease_seconds=6)
    return S3Store("s3://bucket/store", settings, cache=tmp_path / "cache")


def away(weed: Weed, kind: str, seconds: float) -> "Future[None]":
    """The server goes now, and comes back by itself."""
    gone = threading.Event()

    def go() -> None:
        if kind == "refused":
            weed.stop()
            gone.set()
            time.sleep(seconds)
            weed.start()
        else:
            with weed.frozen():
                gone.set()
                time.sleep(seconds)

    pool = ThreadPoolExecutor(1)
    coming_back = pool.submit(go)
    pool.shutdown(wait=False)
    gone.wait()
    return coming_back


@pytest.mark.parametrize("kind", ["refused", "silent"])
@pytest.mark.parametrize("seconds", [5, 30, pytest.param(300, marks=pytest.mark.slow)])
def test_an_outage_is_waited_out(
    weed: Weed, tmp_path: Path, folder: Path, record_of: RecordMaker, kind: str, seconds: float
) -> None:
    store = opened(weed, tmp_path, patience=seconds + 60)
    with store.lock("curate", "held"):  # its keeper lives through the outage, too
        outage, begun = away(weed, kind, seconds), time.monotonic()
        record = record_of(store, folder)
        store.seal(record)
        took = time.monotonic() - begun
        outage.result()
        assert store.find("curate", record.key) == record
        assert (store.fetch(record.artifact) / "inner" / "b.txt").read_text() == "b"
    print(f"\n{kind} for {seconds} s: done after {took:.1f} s")
    assert took > seconds - 1, "the server was away"


@pytest.mark.parametrize("kind", ["refused", "silent"])
def test_patience_ends_in_a_sentence_and_later_it_goes_on(
    weed: Weed, tmp_path: Path, folder: Path, record_of: RecordMaker, kind: str
) -> None:
    store = opened(weed, tmp_path, patience=4)
    outage, begun = away(weed, kind, 25), time.monotonic()
    with pytest.raises(StoreError, match=r"tried for 4 s \(run\.s3\.patience\); is http://127\.0\.0\.1"):
        record_of(store, folder)
    took = time.monotonic() - begun
    outage.result()
    print(f"\n{kind}, patience 4 s: given up after {took:.1f} s")
    assert 3 < took < 20
    store.seal(record := record_of(store, folder))
    assert store.find("curate", record.key) == record


def test_whoever_waits_for_a_lock_takes_nothing_from_a_holder_that_an_outage_silenced(
    weed: Weed, tmp_path: Path
) -> None:
    mine, yours = (opened(weed, tmp_path / name, patience=60) for name in ("mine", "yours"))
    order: list[str] = []

    def second() -> None:
        with yours.lock("curate", "k"):
            order.append("second")

    with mine.lock("curate", "k"):
        other = threading.Thread(target=second)
        other.start()
        time.sleep(1)
        away(weed, "silent", 12).result()  # two leases
        time.sleep(4)
        order.append("first")
    other.join(60)
    assert order == ["first", "second"]


def test_garbage_is_collected_where_deleted_folders_stay_listed(
    weed: Weed, tmp_path: Path, folder: Path, record_of: RecordMaker
) -> None:
    store = opened(weed, tmp_path, patience=20)
    store.seal(record := record_of(store, folder))
    unsealed = record_of(store, folder, 1)
    assert store.delete(record) > 0
    store.bucket.delete([item.key for item in store.bucket.list(f"curate/{unsealed.key}/")])
    assert store.sweep(older_than=0) == 0
    assert not list(store.records()) and store.find("curate", record.key) is None
    with pytest.raises(StoreError, match="run its campaign again"):
        store.fetch(record.artifact)


def aot(*words: str, weed: Weed, home: Path, patience: float = 60) -> "subprocess.Popen[str]":
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "MLFLOW_TRACKING"))}
    settings = ["run.store=s3://bucket/team", f"run.s3.endpoint_url={weed.url}", f"run.s3.patience={patience}"]
    overrides = [part for one in (*settings, *words[2:]) for part in ("--set", one)]
    return subprocess.Popen(
        [sys.executable, "-m", "aot_core.commands.cli", *words[:2], "--home", str(home), *overrides],
        cwd=ROOT, env=kept | {"COLUMNS": "200", "AOT_CACHE": str(home / "cache")},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


ONLY_DATA = "stop_after=prepare_data"
SMOKE = ("run", "configs/smoke.toml", ONLY_DATA)


def test_two_campaigns_share_a_bucket(weed: Weed, tmp_path: Path) -> None:
    """The same stage is asked for on two homes at once: one makes it, the other waits and reuses it."""
    running = [aot(*SMOKE, weed=weed, home=tmp_path / name) for name in ("one", "two")]
    said = [process.communicate(timeout=900)[0] for process in running]
    assert [process.returncode for process in running] == [0, 0], said
    store = opened(weed, tmp_path, patience=20)
    store.bucket.prefix = "team"
    assert [record.stage for record in store.records()] == ["prepare_data"]
    assert not list(store.bucket.list(".locks/prepare_data")), "given back"


def test_a_campaign_outlasts_an_outage_and_goes_on_after_a_longer_one(weed: Weed, tmp_path: Path) -> None:
    process = aot(*SMOKE, weed=weed, home=tmp_path / "home", patience=5)
    assert process.stdout is not None
    assert any("prepare_data" in line for line in process.stdout)
    weed.stop()
    said, _ = process.communicate(timeout=600)
    assert process.returncode != 0 and "run.s3.patience" in said and "Traceback" not in said, said
    outage = ThreadPoolExecutor(1).submit(lambda: (time.sleep(15), weed.start()))
    process = aot(*SMOKE, weed=weed, home=tmp_path / "home", patience=120)
    said, _ = process.communicate(timeout=900)
    outage.result()
    assert process.returncode == 0, said


MAINTAIN = """
import os, sys
from aot_core.home import Home
home = Home(sys.argv[1])
home.create()
os.environ.update(home.environment())
from flows.scheduled import maintenance
state = maintenance("configs/smoke.toml", sys.argv[2:], sys.argv[1], 0.0, True, return_state=True)
print(state.result(raise_on_failure=False))
sys.exit(0 if state.is_completed() else 1)
"""


def test_the_maintenance_flow_tidies_a_bucket(weed: Weed, tmp_path: Path, folder: Path, record_of: RecordMaker) -> None:
    store = opened(weed, tmp_path, patience=20)
    store.seal(record := record_of(store, folder))
    home = tmp_path / "home"
    words = ["run.store=s3://bucket/store", f"run.s3.endpoint_url={weed.url}"]
    for _ in range(2):  # the second finds the emptied folders listed still
        done = subprocess.run(
            [sys.executable, "-c", MAINTAIN, str(home), *words], cwd=ROOT, capture_output=True, text=True, check=False,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
    assert store.find("curate", record.key) is None
    assert not list(store.bucket.list("curate/"))


def test_a_full_disk_under_the_server_is_told_and_with_room_it_goes_on(
    program: str, tmp_path: Path, folder: Path, record_of: RecordMaker
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(disk)], check=False)
    if mounted.returncode != 0:
        pytest.skip("only root may mount a small disk")
    weed = Weed(program, disk)
    try:
        weed.start()
        store = opened(weed, tmp_path, patience=10)
        (folder / "weights.safetensors").write_bytes(os.urandom(40 * 2**20))
        with pytest.raises(StoreError, match="is the server's disk full"):
            record_of(store, folder)
        assert not list(store.records())
        subprocess.run(["mount", "-o", "remount,size=400m", str(disk)], check=True)
        weed.stop()
        weed.start()  # sooner than it notices by itself
        store.seal(record := record_of(store, folder))
        assert store.find("curate", record.key) == record
        assert (store.fetch(record.artifact) / "weights.safetensors").stat().st_size == 40 * 2**20
    finally:
        weed.stop()
        subprocess.run(["umount", "--lazy", str(disk)], check=True)
