"""Every store that there is, behind one fixture. The S3 ones talk to moto's server over loopback, with `make test-s3`
to SeaweedFS (`AOT_WEED`)."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from aot_core.contracts.artifact import ArtifactRef, StageIdentity, StageRecord
from aot_core.contracts.store import S3Settings
from aot_core.store import LocalStore, Store
from aot_core.store.s3 import S3Store
from tests.store.weed import Weed

RecordMaker = Callable[..., StageRecord]

os.environ |= {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"}  # moto takes any


@pytest.fixture(scope="session")
def moto() -> Iterator[str]:
    """An S3 server of this process, and a bucket `bucket` in it."""
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    url = f"http://{host}:{port}"
    boto3.client("s3", endpoint_url=url, region_name="us-east-1").create_bucket(Bucket="bucket")
    yield url
    server.stop()


@pytest.fixture(scope="session")
def endpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An S3 server with a bucket `bucket`."""
    program = os.environ.get("AOT_WEED")
    if program is None:
        yield request.getfixturevalue("moto")
        return
    weed = Weed(program, tmp_path_factory.mktemp("weed"))
    weed.start()
    yield weed.url
    weed.stop()


@pytest.fixture
def s3(endpoint: str) -> S3Settings:
    """Short leases, small parts: nobody waits in a test."""
    return S3Settings(endpoint_url=endpoint, multipart_mib=5, lease_seconds=1.5)


@pytest.fixture
def s3_store(s3: S3Settings, tmp_path: Path) -> S3Store:
    return S3Store(f"s3://bucket/{tmp_path.name}/store", s3, cache=tmp_path / "cache")


@pytest.fixture(params=["local", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return LocalStore(tmp_path / "store") if request.param == "local" else request.getfixturevalue("s3_store")


def tamper(store: Store, record: StageRecord, path: str, contents: bytes | None) -> None:
    """Overwrite or (None) remove a stored file behind the store's back."""
    if isinstance(store, LocalStore):
        file = store.root / record.stage / record.key / "files" / path
        file.write_bytes(contents) if contents is not None else file.unlink()
        return
    assert isinstance(store, S3Store)
    key = f"{record.stage}/{record.key}/{record.artifact.sha256}/files/{path}"
    store.bucket.put(key, contents) if contents is not None else store.bucket.delete([key])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "made"
    (folder / "inner").mkdir(parents=True)
    (folder / "a.txt").write_text("a")
    (folder / "inner" / "b.txt").write_text("b")
    return folder


def make_record(
    store: Store,
    folder: Path,
    seed: int = 0,
    inputs: dict[str, ArtifactRef] | None = None,
    started_at: str = "2026-01-01T00:00:00+00:00",
) -> StageRecord:
    """Put a folder and make its record, unsealed."""
    contents = {name: ref.sha256 for name, ref in (inputs or {}).items()}
    identity = StageIdentity(stage="curate", version=1, config={"seed": seed}, inputs=contents)
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
        started_at=started_at,
    )


@pytest.fixture
def record_of() -> RecordMaker:
    return make_record


@pytest.fixture
def tamper_with() -> Callable[..., None]:
    return tamper
