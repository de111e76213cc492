"""A command's own Prefect server ends with it, whichever way that ends."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from aot_core.home import Home
from flows.own_server import end_left_servers

PROGRAM = """
import time
import psutil
from prefect import flow
from prefect.client.orchestration import get_client
from flows.own_server import keep_own_server

@flow
def waits():
    print(*(child.pid for child in psutil.Process().children()), flush=True)
    time.sleep(600)

keep_own_server()
with get_client(sync_client=True) as client:
    client.hello().raise_for_status()
waits()
"""
Started = tuple["subprocess.Popen[str]", psutil.Process]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[], Started]]:
    home = Home(tmp_path)
    home.create()
    environment = {n: v for n, v in os.environ.items() if n != "PREFECT_API_URL"} | home.environment()
    started: list[psutil.Process] = []

    def start() -> Started:
        process = subprocess.Popen([sys.executable, "-c", PROGRAM], env=environment, stdout=subprocess.PIPE, text=True)
        started.append(psutil.Process(process.pid))
        assert process.stdout is not None
        server = psutil.Process(int(process.stdout.readline()))
        started.append(server)
        return process, server

    yield start
    for process in started:
        if process.is_running():
            process.kill()


def test_no_server_is_left(start: Callable[[], Started], tmp_path: Path) -> None:
    killed, left = start()
    killed.kill()
    killed.wait(60)
    assert left.is_running(), "what this is for: nobody has ended it"

    terminated, server = start()
    assert gone(left), "the next start has"
    assert end_left_servers(str(Home(tmp_path).prefect)) == [], "and lets one alone whose starter lives"
    assert server.is_running()
    terminated.terminate()
    terminated.wait(60)
    assert terminated.returncode == 128 + signal.SIGTERM
    assert gone(server)


def gone(process: psutil.Process) -> bool:
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
