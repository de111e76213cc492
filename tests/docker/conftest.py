"""Real containers on the docker daemon that `tests/docker/machine.sh` prepares."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import docker
import httpx
import pytest

from aot_core.contracts.prepare_data import EffectivenessSettings, PrepareDataConfig, PrepareDataInputs, SplitSizes
from aot_core.contracts.spec import Place, StageSpec
from aot_core.engine.identity import stage_spec
from aot_core.launch.container import HOME, MANAGED

ROOT = Path(__file__).parents[2]

os.environ |= {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"}  # moto takes any


@pytest.fixture(scope="session")
def daemon() -> Any:
    return docker.from_env()


@pytest.fixture
def containers(daemon: Any, tmp_path: Path) -> Iterator[Callable[[], list[Any]]]:
    """The containers of this test's home, whatever their state; those that are left at the end are removed."""

    def found() -> list[Any]:
        labels = [f"{MANAGED}=true", f"{HOME}={tmp_path / 'home'}"]
        return daemon.containers.list(all=True, ignore_removed=True, filters={"label": labels})

    yield found
    for container in found():
        container.remove(force=True, v=True)


@pytest.fixture
def created(daemon: Any, tmp_path: Path) -> Callable[[], list[str]]:
    """Names of the containers that were created for this test's home so far, the removed ones too."""
    since = int(time.time()) - 1

    def names() -> list[str]:
        filters = {"event": "create", "type": "container", "label": [f"{HOME}={tmp_path / 'home'}"]}
        events = daemon.events(since=since, until=int(time.time()) + 1, filters=filters, decode=True)
        return [event["Actor"]["Attributes"]["name"] for event in events]

    return names


@pytest.fixture
def spec_of(tmp_path: Path) -> Callable[..., StageSpec]:
    """A `prepare_data` of so many scenes: 12 take a second, 20,000 longer than any test."""

    def make(scenes: int = 12, **place: Any) -> StageSpec:
        config = PrepareDataConfig(
            splits=SplitSizes(warm_start=scenes, train=8, evaluate=4),
            effectiveness=EffectivenessSettings(enabled=False),
        )
        (tmp_path / "home").mkdir(exist_ok=True)
        where = {
            "store": str(tmp_path / "home" / "store"),
            "device": "cpu",
            "threads": 1,
            "home": str(tmp_path / "home"),
        }
        return stage_spec("prepare_data", config, PrepareDataInputs(), Place(**(where | place)))

    return make


@pytest.fixture(scope="session")
def prefect_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """One Prefect server for all campaigns: each would start its own. Yields its API's address."""
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    environment = os.environ | {"PREFECT_HOME": str(tmp_path_factory.mktemp("prefect"))}
    api = f"http://127.0.0.1:{port}/api"

    def healthy() -> bool:
        try:
            return httpx.get(f"{api}/health").is_success
        except httpx.HTTPError:
            return False

    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL) as server:
        until(healthy)
        yield api
        server.terminate()


@pytest.fixture
def aot(tmp_path: Path, prefect_server: str) -> Iterator[Callable[..., "subprocess.Popen[str]"]]:
    """Starts `aot run configs/smoke.toml --launcher docker` on this test's home; with `control` in that image."""
    started: list[subprocess.Popen[str]] = []

    def run(*arguments: str, control: bool = False, **environment: str) -> "subprocess.Popen[str]":
        home = tmp_path / "home"
        command = ["-m", "aot_core", "run", str(ROOT / "configs" / "smoke.toml"), "--launcher", "docker"]
        clean = {key: value for key, value in os.environ.items() if not key.startswith("PREFECT_")}
        given = {"COLUMNS": "200", "PREFECT_API_URL": prefect_server} | environment
        if control:
            home.mkdir(exist_ok=True)
            prefix = [*in_control_image(home), *(f"--env={key}={value}" for key, value in given.items())]
            prefix += ["aot-control:latest", "python"]
        else:
            prefix = [sys.executable]
        process = subprocess.Popen(
            [*prefix, *command, "--home", str(home), *arguments],
            cwd=ROOT,
            env=clean | given,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        started.append(process)
        return process

    yield run
    for process in started:
        if process.poll() is None:
            process.kill()
            process.wait()


def in_control_image(home: Path) -> list[str]:
    """`docker run` as a team's worker has it: the daemon's socket, and the same folders under the same names."""
    group = Path("/var/run/docker.sock").stat().st_gid
    mounts = ["/var/run/docker.sock:/var/run/docker.sock", f"{home}:{home}", f"{ROOT}/configs:{ROOT}/configs:ro"]
    who = [f"--user={os.getuid()}:{os.getgid()}", f"--group-add={group}"]
    who += [f"--label={MANAGED}=true", f"--label={HOME}={home}"]  # cleared away with the others, should a test fail
    # The image's health check is its worker's: here it would fail for ever, and push the daemon's older events out.
    return [
        "docker",
        "run",
        "--rm",
        "--no-healthcheck",
        "--network=host",
        *who,
        *(f"--volume={mount}" for mount in mounts),
    ]


def until(condition: Callable[[], Any], seconds: float = 600) -> Any:
    """Wait for a condition's first true value. Fails where it does not come."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.2)
    return value


@pytest.fixture
def wait_until() -> Callable[..., Any]:
    return until
