"""A Python command in a container of the stage image: for an orchestrator that has no torch of its own."""

# pyright: basic
# docker's SDK carries no types.

import os
from collections.abc import Sequence
from typing import NamedTuple

import requests
from docker.errors import DockerException

from aot_core.contracts.errors import LauncherError
from aot_core.contracts.launch import DockerSettings
from aot_core.contracts.spec import Place
from aot_core.launch.container import errand
from aot_core.launch.docker import connect, gpus_of

_LAST_LINES = 5


class Ended(NamedTuple):
    """How a command ended."""

    code: int
    said: str
    """What it wrote to its standard output."""
    complained: str
    """The last lines of its standard error."""


def run_errand(
    place: Place, settings: DockerSettings, command: Sequence[str], seconds: float | None, *, gpu: bool = False
) -> Ended:
    """Run `python COMMAND` with what a stage at that place may see and do, and without a GPU unless one is wanted.

    Raises LauncherError where docker cannot, or where it takes longer than so many seconds.
    """
    client = connect()
    try:
        wanted = errand(place, settings, command, os.environ)
        container = client.containers.create(**wanted, device_requests=gpus_of(client, place) if gpu else [])
    except (DockerException, requests.RequestException) as error:
        raise LauncherError(f"run.docker.image {settings.image!r}: docker makes no container of it: {error}") from error
    try:
        container.start()
        code = container.wait(timeout=seconds)["StatusCode"]
        said = container.logs(stdout=True, stderr=False).decode(errors="replace")
        complained = container.logs(stdout=False, stderr=True, tail=_LAST_LINES).decode(errors="replace")
    except (requests.ReadTimeout, requests.ConnectionError) as error:
        raise LauncherError(f"`python {' '.join(command)}` has not ended in its container in {seconds:g} s") from error
    except (DockerException, requests.RequestException) as error:
        raise LauncherError(f"docker cannot run `python {' '.join(command)}` in a container: {error}") from error
    finally:
        container.remove(force=True, v=True)
    return Ended(code, said, complained)
