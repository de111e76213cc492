"""vLLM's own server, started on the very weights that are evaluated, and ended afterwards.

    model folder -> `vllm serve` on a free loopback port -> healthy -> EndpointSettings for `OpenAIEngine` -> ended

Needs vLLM on the machine (`pip install vllm`; it is no dependency of this project). A server that batches requests as
they come does not promise the same bits twice; the engine in this process does.
"""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from aot_core.contracts.benchmarks import EndpointSettings, VllmSettings
from aot_core.evaluation.engines.protocol import EngineError

_NAME = "defender"
_LOG_TAIL = 2000
"""Characters of the server's messages that an error shows."""
_ENDING_SECONDS = 30.0


@contextmanager
def vllm_server(model: Path, settings: VllmSettings, log: Path) -> Iterator[EndpointSettings]:
    """Serve a transformers folder while the context lasts.

    Args:
        model: weights, processor and chat template.
        log: the server's messages.

    Raises EngineError where vLLM is not installed, or does not become healthy.
    """
    program = shutil.which("vllm")
    if program is None:
        raise EngineError(
            "vLLM is to answer, and there is no `vllm` on this machine's path; install it (pip install vllm), or leave "
            "the setting out: transformers then answers in this process"
        )
    port = _free_port()
    command = [program, "serve", str(model), "--host", "127.0.0.1", "--port", str(port), "--served-model-name", _NAME]
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [*command, *settings.arguments],
            stdout=stream,
            stderr=stream,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            _wait_until_healthy(process, f"http://127.0.0.1:{port}/health", settings.start_seconds, log)
            yield EndpointSettings(
                url=f"http://127.0.0.1:{port}/v1",
                model=_NAME,
                concurrency=settings.concurrency,
                timeout_seconds=settings.timeout_seconds,
            )
        finally:
            _end(process)


def _wait_until_healthy(process: "subprocess.Popen[bytes]", address: str, seconds: float, log: Path) -> None:
    deadline = time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(httpx.HTTPError):
            if httpx.get(address, timeout=5, trust_env=False).status_code == 200:
                return
        time.sleep(0.5)
    code = process.poll()
    what = f"did not become healthy within {seconds:g} s" if code is None else f"ended with code {code}"
    told = log.read_text(encoding="utf-8", errors="replace")[-_LOG_TAIL:]
    raise EngineError(f"vllm serve {what}; see evaluate.benchmarks.vllm.arguments. Its last messages:\n{told}")


def _end(process: "subprocess.Popen[bytes]") -> None:
    """End the server and its workers: its whole process group."""
    for kind in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, kind)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_ENDING_SECONDS)
            return


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
