"""Runs every stage in a container of its own, and never twice at a time.

spec.json --tar--> container (named by the stage's key) --tar--> result.json. Nothing is shared but what is mounted.
A container outlives its killed orchestrator: the next start finds it by its name, follows it and takes its result.
Whatever else ends the wait (Ctrl-C, SIGTERM, a cancelled run, a time-out) stops the container first.
"""

# pyright: basic
# docker's SDK carries no types.

import contextvars
import io
import logging
import os
import tarfile
import threading
import time
from typing import Any

import docker
import requests
from docker.errors import APIError, DockerException, ImageNotFound, NotFound
from docker.types import DeviceRequest

from aot_core.contracts.errors import LauncherError, StageCrashedError, StageOutOfMemoryError
from aot_core.contracts.launch import DockerSettings
from aot_core.contracts.spec import Place, StageResult, StageSpec
from aot_core.launch.container import MANAGED, SCRATCH, absolute, creation, demand_reachable, name_of
from aot_core.launch.outcome import result_or_error
from aot_core.launch.protocol import Patience, StopRequested, never

logger = logging.getLogger(__name__)

_POLL_SECONDS = 0.25
_GRACE_SECONDS = 15
"""Between SIGTERM and SIGKILL."""
_DAEMON_SECONDS = 60
"""How long a docker daemon may be away (restarted) while a stage runs."""
_LAST_LINES = 5
_FINISHED = ("exited", "dead")


class DockerLauncher:
    """Containers through the docker SDK, on the host that `DOCKER_HOST` names."""

    def __init__(
        self,
        settings: DockerSettings,
        stage_seconds: float | None = None,
        stop_requested: StopRequested = never,
    ) -> None:
        self.settings = settings
        self._stage_seconds, self._stop_requested = stage_seconds, stop_requested

    def check(self, place: Place) -> None:
        """See `Launcher.check`: the daemon, the image, the GPU, and whether a container reaches store and tracker."""
        client = connect()
        self._digest(client)
        demand_reachable(place, self.settings, local_daemon=client.api.base_url.startswith("http+docker"))
        if place.device == "cuda":
            self._try_gpu(client, place)

    def run(self, spec: StageSpec) -> StageResult:
        """See `Launcher.run`."""
        client = connect()
        spec = absolute(spec)
        patience = Patience(spec.stage, self._stage_seconds, self._stop_requested)
        for _ in range(5):
            container = self._adopt(client, spec) or self._start(client, spec)
            if container is None:
                continue
            try:
                return self._follow(container, spec, patience)
            except NotFound:
                # Another campaign waited for the same stage and was first to clear its container away: the store
                # holds the result now, and a new container finds it there.
                logger.info("%s: its container is gone; looking again", spec.stage)
        raise StageCrashedError(
            f"{spec.stage}: its container {name_of(spec)} vanishes again and again; who removes it?"
        )

    def _adopt(self, client: Any, spec: StageSpec) -> Any:
        """The stage's container of an earlier or another orchestrator, if it is still of use."""
        try:
            container = client.containers.get(name_of(spec))
            since = time.monotonic()
            while container.status == "created" and time.monotonic() - since < _GRACE_SECONDS:
                time.sleep(_POLL_SECONDS)  # another orchestrator is about to start it, or died just then
                container.reload()
            useless = container.status == "created" or (
                container.status in _FINISHED and container.attrs["State"]["ExitCode"] != 0
            )
            if useless:
                container.remove(force=True, v=True)
                return None
        except NotFound:
            return None
        logger.warning("%s: found its container %s (%s); following it", spec.stage, container.name, container.status)
        return container

    def _start(self, client: Any, spec: StageSpec) -> Any:
        """A new container, running; None where another orchestrator was faster."""
        wanted = creation(spec, self.settings, self._digest(client), os.environ)
        try:
            container = client.containers.create(**wanted, device_requests=gpus_of(client, spec.place, spec.processes))
        except APIError as error:
            if error.status_code == 409:
                return None
            raise LauncherError(f"{spec.stage}: docker refuses its container: {error.explanation or error}") from error
        try:
            container.put_archive(SCRATCH, _tar("spec.json", spec.model_dump_json().encode()))
            container.start()
        except APIError as error:
            _discard(container)
            raise LauncherError(
                f"{spec.stage}: docker cannot start its container: {error.explanation or error}"
            ) from error
        except BaseException:
            _discard(container)
            raise
        logger.info("%s: container %s", spec.stage, container.name)
        return container

    def _follow(self, container: Any, spec: StageSpec, patience: Patience) -> StageResult:
        """Wait for the end, its lines in our log as they come; then result or error, and no container any more."""
        lines = _Lines(container)
        try:
            lines.start()
            while not _finished(container, spec.stage):
                patience.demand()
                time.sleep(_POLL_SECONDS)
            lines.join(_GRACE_SECONDS)
            result = _result(container, spec)
            state = container.attrs["State"]
        except NotFound:
            raise
        except BaseException:
            _stop(container)
            raise
        _discard(container)
        if state["OOMKilled"] and (result is None or result.record is None):
            raise StageOutOfMemoryError(
                f"{spec.stage}: the kernel ended its container at the memory limit of {self.settings.memory}; raise "
                f"run.docker.memory, or lower the batch size in [{spec.stage}]"
            )
        code = int(state["ExitCode"])
        try:
            return result_or_error(spec.stage, result, 128 - code if code > 128 else code)
        except StageCrashedError as error:
            raise StageCrashedError(" | ".join([str(error), *lines.last])) from error

    def _digest(self, client: Any) -> str:
        """What identifies the image for good: its repository digest, or its id where it was built here."""
        image = self.settings.image
        try:
            found = client.images.get(image)
        except ImageNotFound as error:
            target = "stage-gpu" if "gpu" in image else "stage-cpu"
            raise LauncherError(
                f"run.docker.image: there is no image {image!r} on the docker host; `docker/build.sh {target}` builds "
                f"it, or `docker pull {image}`"
            ) from error
        return next(iter(found.attrs.get("RepoDigests") or []), found.id)

    def _try_gpu(self, client: Any, place: Place) -> None:
        """Start a container with a GPU that does nothing: the one sure way to know whether docker can."""
        probe = client.containers.create(
            self.settings.image,
            entrypoint=["python", "-c", ""],
            device_requests=gpus_of(client, place),
            network="none",
            labels={MANAGED: "true"},
        )
        try:
            probe.start()
        except (APIError, DockerException) as error:
            raise LauncherError(
                f"run.device is 'cuda' and docker cannot give a container a GPU ({error}); install the NVIDIA "
                "container toolkit on the docker host, or use --device cpu"
            ) from error
        finally:
            _discard(probe)


def connect() -> Any:
    """A client of the docker daemon. Raises LauncherError where none answers."""
    try:
        client = docker.from_env()
        client.ping()
    except (DockerException, requests.RequestException) as error:
        where = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
        raise LauncherError(
            f"no docker daemon answers at {where} ({error}); start it, set DOCKER_HOST, or use --launcher subprocess"
        ) from error
    return client


def gpus_of(client: Any, place: Place, processes: int = 1) -> list[DeviceRequest]:
    """A GPU a process: the given one, or any; none for a CPU stage, and for "auto" where the host has none."""
    if place.device == "cpu" or (place.device == "auto" and "nvidia" not in client.info().get("Runtimes", {})):
        return []
    wanted: dict[str, Any] = {"device_ids": [place.gpu]} if place.gpu is not None else {"count": processes}
    return [DeviceRequest(capabilities=[["gpu"]], **wanted)]


def _tar(name: str, contents: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        entry = tarfile.TarInfo(name)
        entry.size, entry.mode = len(contents), 0o644
        tar.addfile(entry, io.BytesIO(contents))
    return buffer.getvalue()


def _finished(container: Any, stage: str) -> bool:
    """Whether the container has ended. Waits for a docker daemon that is being restarted."""
    since = time.monotonic()
    while True:
        try:
            container.reload()
            return container.status in _FINISHED
        except NotFound:
            raise
        except (DockerException, requests.RequestException, OSError) as error:
            if time.monotonic() - since > _DAEMON_SECONDS:
                raise StageCrashedError(
                    f"{stage}: no docker daemon for {_DAEMON_SECONDS} s ({error}); its container may still run, and "
                    "is found again by the next start"
                ) from error
            time.sleep(1)


def _result(container: Any, spec: StageSpec) -> StageResult | None:
    """`result.json` out of the container's volume; None where it wrote none, or another stage's."""
    try:
        chunks, _ = container.get_archive(f"{SCRATCH}/result.json")
    except NotFound:
        container.reload()  # raises NotFound again where the container itself is gone
        return None
    with tarfile.open(fileobj=io.BytesIO(b"".join(chunks))) as tar:
        stream = tar.extractfile("result.json")
        assert stream is not None, "a file, not a folder"
        result = StageResult.model_validate_json(stream.read())
    return result if result.record is None or result.record.key == spec.key else None


def _stop(container: Any) -> None:
    """SIGTERM, a while to react, SIGKILL, and away with it."""
    logger.warning("stopping container %s", container.name)
    try:
        container.stop(timeout=_GRACE_SECONDS)
    except (DockerException, requests.RequestException):
        logger.exception("container %s could not be stopped", container.name)
    _discard(container)


def _discard(container: Any) -> None:
    try:
        container.remove(force=True, v=True)
    except NotFound:
        pass
    except (DockerException, requests.RequestException):
        logger.exception("container %s could not be removed; `aot` maintenance tries again", container.name)


class _Lines(threading.Thread):
    """Copies a container's lines into our log while they come; within the caller's context, so that Prefect knows
    whose they are."""

    def __init__(self, container: Any) -> None:
        super().__init__(name=f"log of {container.name}", daemon=True)
        self._container, self._context = container, contextvars.copy_context()
        self.last: list[str] = []

    def run(self) -> None:
        self._context.run(self._copy)

    def _copy(self) -> None:
        rest = b""
        try:
            for chunk in self._container.logs(stream=True, follow=True):
                *whole, rest = (rest + chunk).split(b"\n")
                for line in whole:
                    self._say(line)
        except (DockerException, requests.RequestException):
            logger.debug("the log of %s ended early", self._container.name, exc_info=True)
        if rest:
            self._say(rest)

    def _say(self, line: bytes) -> None:
        text = line.decode(errors="replace").rstrip()
        if text:
            self.last = [*self.last[1 - _LAST_LINES :], text]
            logger.info("%s", text)
