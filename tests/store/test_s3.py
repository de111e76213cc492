"""What only a bucket can get wrong: a flaky network, bytes that rot, locks of the dead, other people's settings."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from werkzeug.serving import make_server

from aot_core.contracts.artifact import ArtifactRef, StageRecord
from aot_core.contracts.store import S3Settings
from aot_core.store import StoreError, open_store
from aot_core.store.manifest import FileEntry, Manifest
from aot_core.store.s3 import S3Store

RecordMaker = Callable[..., StageRecord]
Application = Callable[[dict[str, Any], Any], Any]


@pytest.fixture
def served(moto: str) -> Iterator[Callable[[Callable[[Application], Application]], S3Settings]]:
    """An S3 server whose every answer passes through what the test puts before it; `moto` has made its bucket."""
    assert moto
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app

    servers: list[Any] = []

    def serve(middleware: Callable[[Application], Application]) -> S3Settings:
        application = middleware(DomainDispatcherApplication(create_backend_app))
        server = make_server("127.0.0.1", 0, application, threaded=True)
        servers.append(server)
        Thread(target=server.serve_forever, daemon=True).start()
        return S3Settings(endpoint_url=f"http://127.0.0.1:{server.server_port}", multipart_mib=5)

    yield serve
    for server in servers:
        server.shutdown()


def test_an_unreliable_server_is_asked_again(
    served: Callable[..., S3Settings], tmp_path: Path, folder: Path, record_of: RecordMaker
) -> None:
    seen = {"all": 0, "refused": 0}

    def every_other_fails(application: Application) -> Application:
        def answer(environ: dict[str, Any], start_response: Any) -> Any:
            seen["all"] += 1
            if seen["all"] % 2:
                seen["refused"] += 1
                environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
                start_response("503 Slow Down", [("Content-Length", "0")])
                return [b""]
            return application(environ, start_response)

        return answer

    store = S3Store(f"s3://bucket/{tmp_path.name}", served(every_other_fails), cache=tmp_path / "cache")
    record = record_of(store, folder)
    store.seal(record)
    assert store.find("curate", record.key) == record
    assert (store.fetch(record.artifact) / "a.txt").read_text() == "a"
    assert seen["refused"] > 5


def test_a_server_that_is_out_of_order_is_told_after_the_patience_for_it(
    served: Callable[..., S3Settings], tmp_path: Path, folder: Path, record_of: RecordMaker
) -> None:
    broken = True

    def breaks(application: Application) -> Application:
        def answer(environ: dict[str, Any], start_response: Any) -> Any:
            if not broken:
                return application(environ, start_response)
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            start_response("500 Internal Server Error", [("Content-Length", "0")])
            return [b""]

        return answer

    settings = served(breaks).model_copy(update={"patience": 1.5})
    store, begun = S3Store(f"s3://bucket/{tmp_path.name}", settings, cache=tmp_path / "cache"), time.monotonic()
    with pytest.raises(StoreError, match=r"so for 1\.5 s \(run\.s3\.patience\); is the server's disk full"):
        store.bucket.put("a", b"a")
    assert 1.5 <= time.monotonic() - begun < 10
    broken = False
    store.seal(record := record_of(store, folder))
    assert store.find("curate", record.key) == record


def test_a_lock_whose_answer_was_lost_is_held_all_the_same(
    served: Callable[..., S3Settings], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The request is tried again, and its condition refuses what it has itself written."""
    lost = {"PUT": 0}

    def loses_answers(application: Application) -> Application:
        def answer(environ: dict[str, Any], start_response: Any) -> Any:
            is_lock = environ["REQUEST_METHOD"] == "PUT" and environ["PATH_INFO"].endswith(".locks/curate-k")
            if not is_lock or lost["PUT"] % 2:
                lost["PUT"] += is_lock
                return application(environ, start_response)
            lost["PUT"] += 1
            b"".join(application(environ, lambda *_: None))
            start_response("503 Slow Down", [("Content-Length", "0")])
            return [b""]

        return answer

    settings = served(loses_answers).model_copy(update={"lease_seconds": 3})
    store, begun = S3Store(f"s3://bucket/{tmp_path.name}", settings, cache=tmp_path / "cache"), time.monotonic()
    with store.lock("curate", "k"):
        assert time.monotonic() - begun < 3, "it did not wait for itself"
        time.sleep(2.5)  # two renewals
    assert lost["PUT"] >= 4 and not list(store.bucket.list(".locks/curate"))
    assert not [line for line in caplog.messages if "lost the lock" in line or "took over" in line]


def test_the_setting_of_old_is_read_and_a_chosen_one_told() -> None:
    assert S3Settings.model_validate({"attempts": 8}) == S3Settings()
    with pytest.raises(ValueError, match="attempts is no longer a setting; set patience"):
        S3Settings.model_validate({"attempts": 3})


@pytest.mark.parametrize("server_knows_checksums", [True, False])
def test_bytes_that_rot_in_the_bucket_are_noticed_and_the_stage_can_run_again(
    served: Callable[..., S3Settings],
    tmp_path: Path,
    folder: Path,
    record_of: RecordMaker,
    server_knows_checksums: bool,
) -> None:
    def flips_a_bit(application: Application) -> Application:
        def answer(environ: dict[str, Any], start_response: Any) -> Any:
            def start(status: str, headers: list[tuple[str, str]], *rest: Any) -> Any:
                told = [h for h in headers if server_knows_checksums or not h[0].lower().startswith("x-amz-checksum")]
                return start_response(status, told, *rest)

            body = b"".join(application(environ, start))
            rots = environ["REQUEST_METHOD"] == "GET" and environ["PATH_INFO"].endswith("files/a.txt")
            return [bytes([body[0] ^ 1]) + body[1:] if rots else body]

        return answer

    rotten = S3Store(f"s3://bucket/{tmp_path.name}", served(flips_a_bit), cache=tmp_path / "cache")
    record = record_of(rotten, folder)
    rotten.seal(record)
    assert rotten.find("curate", record.key) == record, "size and ETag are as they were"
    with pytest.raises(StoreError, match="damaged"):
        rotten.fetch(record.artifact)
    assert rotten.find("curate", record.key) is None, "so the campaign makes it again"
    assert not list((tmp_path / "cache").iterdir()), "nothing damaged is kept"


def test_an_upload_that_arrives_in_part_is_no_artifact(
    served: Callable[..., S3Settings], tmp_path: Path, folder: Path
) -> None:
    def loses_b(application: Application) -> Application:
        def answer(environ: dict[str, Any], start_response: Any) -> Any:
            if environ["REQUEST_METHOD"] == "PUT" and environ["PATH_INFO"].endswith("b.txt"):
                environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
                start_response("200 OK", [("Content-Length", "0"), ("ETag", '"0"')])
                return [b""]
            return application(environ, start_response)

        return answer

    store = S3Store(f"s3://bucket/{tmp_path.name}", served(loses_b), cache=tmp_path / "cache")
    with pytest.raises(StoreError, match=r"inner/b\.txt"):
        store.put("curate", "a" * 64, folder)


def test_a_large_file_goes_up_in_parts_and_comes_back_whole(
    s3_store: S3Store, tmp_path: Path, record_of: RecordMaker
) -> None:
    big = tmp_path / "big"
    big.mkdir()
    contents = os.urandom(11 * 2**20)
    (big / "weights.safetensors").write_bytes(contents)
    record = record_of(s3_store, big)
    s3_store.seal(record)
    (stored,) = s3_store.bucket.list(f"curate/{record.key}/{record.artifact.sha256}/files/")
    assert stored.etag.endswith('-3"'), "three parts of 5 MiB and less"
    assert (s3_store.fetch(record.artifact) / "weights.safetensors").read_bytes() == contents


def test_what_is_cached_is_not_fetched_again_and_not_trusted_either(
    s3_store: S3Store, folder: Path, record_of: RecordMaker
) -> None:
    record = record_of(s3_store, folder)
    first = s3_store.fetch(record.artifact)
    stamp = (first / "a.txt").stat().st_ino
    assert (s3_store.fetch(record.artifact) / "a.txt").stat().st_ino == stamp
    (first / "a.txt").write_text("changed")
    assert (s3_store.fetch(record.artifact) / "a.txt").read_text() == "a"


def test_encryption_is_asked_for_with_every_object(
    moto: str, tmp_path: Path, folder: Path, record_of: RecordMaker
) -> None:
    settings = S3Settings(endpoint_url=moto, encryption="aws:kms", kms_key="alias/aot")
    store = S3Store(f"s3://bucket/{tmp_path.name}", settings, cache=tmp_path / "cache")
    store.seal(record_of(store, folder))
    objects = list(store.bucket.list())
    assert len(objects) == 5
    for item in objects:
        head = store.bucket._client.head_object(Bucket="bucket", Key=f"{tmp_path.name}/{item.key}")
        assert (head["ServerSideEncryption"], head["SSEKMSKeyId"]) == ("aws:kms", "alias/aot"), item.key


HOLD = """
import sys, time
from aot_core.contracts.store import S3Settings
from aot_core.store.s3 import S3Store
with S3Store(sys.argv[1], S3Settings.model_validate_json(sys.argv[2])).lock("curate", "k"):
    print("held", flush=True)
    time.sleep(60)
"""


def test_the_lock_of_a_killed_holder_is_free_after_a_lease(s3_store: S3Store, s3: S3Settings) -> None:
    command = [sys.executable, "-c", HOLD, str(s3_store.bucket), s3.model_dump_json()]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        holder.kill()
    with s3_store.lock("curate", "k"):
        pass
    assert not [item.key for item in s3_store.bucket.list(".locks/curate")], "given back"


def test_a_store_that_ignores_conditions_is_refused_before_it_lets_two_in(
    served: Callable[..., S3Settings], tmp_path: Path
) -> None:
    def ignores_conditions(application: Application) -> Application:
        def answer(environ: dict[str, Any], start_response: Any) -> Any:
            environ.pop("HTTP_IF_NONE_MATCH", None)
            environ.pop("HTTP_IF_MATCH", None)
            return application(environ, start_response)

        return answer

    store = S3Store(f"s3://bucket/{tmp_path.name}", served(ignores_conditions), cache=tmp_path / "cache")
    with pytest.raises(StoreError, match="conditional writes"), store.lock("curate", "k"):
        pass


def test_a_manifest_that_leads_out_of_the_cache_is_refused(s3_store: S3Store) -> None:
    evil = Manifest(files=(FileEntry(path="../../escaped", bytes=1, sha256="0" * 64),))
    ref = ArtifactRef(uri="aot://curate/" + "c" * 64, sha256=evil.sha256)
    s3_store.bucket.put(f"curate/{'c' * 64}/{evil.sha256}/manifest.json", evil.model_dump_json().encode())
    with pytest.raises(StoreError, match="outside of the artifact"):
        s3_store.fetch(ref)


def test_a_bucket_that_is_not_there_is_named_with_the_fix(s3: S3Settings) -> None:
    with pytest.raises(StoreError, match=r"no-such-bucket.*make the bucket"):
        open_store("s3://no-such-bucket/x", s3)


def test_a_server_that_is_not_there_is_named_with_the_fix() -> None:
    with pytest.raises(StoreError, match=r"run\.s3\.endpoint_url"):
        open_store("s3://bucket/x", S3Settings(endpoint_url="http://127.0.0.1:1", patience=0))


def test_no_credentials_are_said_with_the_fix(s3: S3Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(StoreError, match="AWS_ACCESS_KEY_ID"):
        open_store("s3://bucket/other", s3)


def test_a_key_needs_its_encryption() -> None:
    with pytest.raises(ValueError, match="aws:kms"):
        S3Settings(kms_key="alias/aot")


@pytest.fixture
def refuses() -> Iterator[Callable[[int], S3Settings]]:
    """A server that refuses everything by a bare 403, and whose clock differs from ours by so many minutes."""
    servers: list[HTTPServer] = []

    def serve(minutes: int) -> S3Settings:
        class Refuses(BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                self.send_response_only(403)
                self.send_header("Date", formatdate(time.time() + 60 * minutes, usegmt=True))
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None: ...

        servers.append(HTTPServer(("127.0.0.1", 0), Refuses))
        Thread(target=servers[-1].serve_forever, daemon=True).start()
        return S3Settings(endpoint_url=f"http://127.0.0.1:{servers[-1].server_port}")

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(("minutes", "told"), [(40, "behind"), (-40, "ahead of")])
def test_a_clock_that_is_off_is_told_as_such(refuses: Callable[[int], S3Settings], minutes: int, told: str) -> None:
    """Missing rights are a bare 403 too where a bucket is asked for: only the server's own clock tells them apart."""
    with pytest.raises(StoreError, match=f"clock is why .* 40 minutes {told} the server's") as raised:
        open_store("s3://bucket/store", refuses(minutes))
    assert "credentials lack" not in str(raised.value)
    with pytest.raises(StoreError, match="credentials lack"):
        open_store("s3://bucket/store", refuses(0))
