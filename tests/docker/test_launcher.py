"""One stage in a real container: what it may do, how it is seen, and every way in which it can end."""

import logging
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from aot_core.contracts.errors import (
    LauncherError,
    StageBadInputError,
    StageCancelledError,
    StageCrashedError,
    StageOutOfMemoryError,
    StageTimeoutError,
)
from aot_core.contracts.launch import DockerSettings
from aot_core.contracts.spec import Place, StageSpec
from aot_core.contracts.store import S3Settings
from aot_core.engine.runner import execute
from aot_core.launch.docker import DockerLauncher
from aot_core.launch.leftovers import reap
from aot_core.store import LocalStore
from aot_core.store.s3 import S3Store

pytestmark = [pytest.mark.docker, pytest.mark.timeout(600)]

Containers = Callable[[], list[Any]]
SpecOf = Callable[..., StageSpec]
LONG = 20_000


def running(containers: Containers) -> list[Any]:
    return [container for container in containers() if container.status == "running"]


def test_a_stage_in_a_container_gives_the_same_bytes(spec_of: SpecOf, containers: Containers, tmp_path: Path) -> None:
    inside = DockerLauncher(DockerSettings()).run(spec_of()).record
    here = execute(spec_of(store=str(tmp_path / "other"))).record
    assert inside is not None and here is not None
    assert inside.artifact == here.artifact and inside.outputs == here.outputs
    assert inside.image_digest.startswith("sha256:") and inside.git_commit
    assert LocalStore(tmp_path / "home" / "store").find("prepare_data", inside.key) == inside
    assert containers() == [], "cleared away"


def test_what_a_container_may_not_do(
    spec_of: SpecOf, containers: Containers, wait_until: Callable[..., Any], daemon: Any, tmp_path: Path
) -> None:
    ended = threading.Event()
    settings = DockerSettings(memory="2g", cpus=1, shm_size="128m")
    launcher = DockerLauncher(settings, stop_requested=ended.is_set)
    failures: list[BaseException] = []

    def run() -> None:
        try:
            launcher.run(spec_of(LONG))
        except StageCancelledError as error:
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    (container,) = wait_until(lambda: running(containers))
    limits = daemon.api.inspect_container(container.id)["HostConfig"]
    assert limits["ReadonlyRootfs"] and limits["CapDrop"] == ["ALL"] and not limits["CapAdd"]
    assert limits["SecurityOpt"] == ["no-new-privileges:true"] and not limits["Privileged"]
    assert (limits["Memory"], limits["MemorySwap"], limits["ShmSize"]) == (2**31, 2**31, 2**27)
    assert limits["NanoCpus"] == 10**9 and limits["NetworkMode"] == "none" and limits["PidsLimit"] == 4096
    assert limits["Binds"] == [f"{tmp_path}/home/store:{tmp_path}/home/store:rw"], "the store, and nothing else"
    status = container.exec_run(["python", "-c", "print(open('/proc/self/status').read())"]).output.decode()
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert int(fields["CapEff"], 16) == 0 and fields["NoNewPrivs"] == "1"

    def tried(code: str) -> str:
        return container.exec_run(["python", "-c", code]).output.decode()

    for path in ("/opt/aot/x", "/etc/x", "/usr/x"):
        assert "Read-only file system" in tried(f"open('{path}', 'w')"), path
    # Not merely without an answer: there is no way out.
    assert "unreachable" in tried("import socket; socket.create_connection(('192.0.2.1', 53), 2)")
    ended.set()
    thread.join(60)
    assert failures and containers() == []


def test_its_lines_are_ours_while_it_runs(
    spec_of: SpecOf, containers: Containers, wait_until: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    ended = threading.Event()
    caplog.set_level(logging.INFO, logger="aot_core.launch.docker")

    def run() -> None:
        with pytest.raises(StageCancelledError):
            DockerLauncher(DockerSettings(), stop_requested=ended.is_set).run(spec_of(LONG))

    thread = threading.Thread(target=run)
    thread.start()
    wait_until(lambda: "prepare_data: started" in caplog.text)
    assert running(containers), "it has not ended yet"
    ended.set()
    thread.join(60)
    assert not thread.is_alive()


def test_bad_input_keeps_its_words(spec_of: SpecOf, containers: Containers) -> None:
    spec = spec_of()
    config = {**spec.config, "splits": {**spec.config["splits"], "train": -1}}
    with pytest.raises(StageBadInputError, match=r"splits\.train"):
        DockerLauncher(DockerSettings()).run(spec.model_copy(update={"config": config}))
    assert containers() == []


def test_a_memory_limit_is_told_apart_from_a_crash(spec_of: SpecOf, containers: Containers) -> None:
    with pytest.raises(StageOutOfMemoryError, match=r"limit of 96m; raise run\.docker\.memory"):
        DockerLauncher(DockerSettings(memory="96m")).run(spec_of())
    assert containers() == []


def test_a_killed_container_is_a_crash(spec_of: SpecOf, containers: Containers, wait_until: Callable[..., Any]) -> None:
    def kill() -> None:
        (container,) = wait_until(lambda: running(containers))
        container.kill("SIGKILL")

    killer = threading.Thread(target=kill)
    killer.start()
    with pytest.raises(StageCrashedError, match="signal 9"):
        DockerLauncher(DockerSettings()).run(spec_of(LONG))
    killer.join()
    assert containers() == []


def test_a_stage_that_takes_too_long_is_ended(spec_of: SpecOf, containers: Containers) -> None:
    with pytest.raises(StageTimeoutError, match=r"run\.stage_hours"):
        DockerLauncher(DockerSettings(), stage_seconds=5).run(spec_of(LONG))
    assert containers() == []


def test_an_image_that_is_not_there_is_named_with_the_fix(spec_of: SpecOf) -> None:
    launcher = DockerLauncher(DockerSettings(image="aot-nowhere:latest"))
    with pytest.raises(LauncherError, match=r"aot-nowhere.*docker/build\.sh"):
        launcher.check(spec_of().place)
    with pytest.raises(LauncherError, match=r"aot-nowhere"):
        launcher.run(spec_of())


def test_a_gpu_stage_without_a_gpu_is_refused_before_anything_starts(spec_of: SpecOf, daemon: Any) -> None:
    if "nvidia" in daemon.info()["Runtimes"]:
        pytest.skip("this machine has a GPU")
    before = {container.id for container in daemon.containers.list(all=True)}
    with pytest.raises(LauncherError, match="container toolkit"):
        DockerLauncher(DockerSettings()).check(spec_of(device="cuda").place)
    assert {container.id for container in daemon.containers.list(all=True)} <= before, "the probe is cleared away"


def test_a_store_that_no_container_reaches_is_refused(spec_of: SpecOf) -> None:
    place: Place = spec_of(store="s3://bucket/x").place
    with pytest.raises(LauncherError, match=r"run\.docker\.network is 'none'"):
        DockerLauncher(DockerSettings()).check(place)


@pytest.fixture
def bucket() -> Iterator[S3Settings]:
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    settings = S3Settings(endpoint_url=f"http://{host}:{port}")
    boto3.client("s3", endpoint_url=settings.endpoint_url, region_name="us-east-1").create_bucket(Bucket="bucket")
    yield settings
    server.stop()


def test_a_bucket_needs_no_mount_and_no_root(
    spec_of: SpecOf, containers: Containers, bucket: S3Settings, tmp_path: Path, wait_until: Callable[..., Any]
) -> None:
    users: list[str] = []

    def look() -> None:
        (container,) = wait_until(lambda: running(containers))
        users.append(container.exec_run(["id", "-u"]).output.decode().strip())

    looker = threading.Thread(target=look)
    looker.start()
    spec = spec_of(200, store="s3://bucket/team", s3=bucket)
    record = DockerLauncher(DockerSettings(network="host")).run(spec).record
    looker.join()
    assert users == ["10001"]
    assert S3Store("s3://bucket/team", bucket, cache=tmp_path / "cache").find("prepare_data", spec.key) == record


def test_what_a_dead_campaign_left_is_reaped_and_a_living_ones_is_not(
    spec_of: SpecOf, containers: Containers, daemon: Any, tmp_path: Path
) -> None:
    from aot_core.launch.container import creation

    for campaign, scenes in (("a" * 64, LONG), ("b" * 64, LONG + 1)):
        spec = spec_of(scenes, campaign=campaign)
        Path(spec.place.store).mkdir(exist_ok=True)
        daemon.containers.create(**creation(spec, DockerSettings(), "", os.environ))
    home = str(tmp_path / "home")
    assert len(containers()) == 2
    assert reap(home, lambda key: key == "a" * 64, older_than=3600) == [], "its campaign may be started again"
    assert len(reap(home, lambda key: key == "a" * 64, older_than=0)) == 1
    (left,) = containers()
    assert left.labels["aot.campaign"] == "a" * 64


def test_no_daemon_is_said_with_the_fix(spec_of: SpecOf, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/nowhere.sock")
    with pytest.raises(
        LauncherError, match=r"no docker daemon answers at unix://.*nowhere\.sock.*--launcher subprocess"
    ):
        DockerLauncher(DockerSettings()).check(spec_of().place)
