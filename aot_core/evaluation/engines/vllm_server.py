"""vLLM's own server, started on the very weights that are evaluated, and ended afterwards.

    model folder -> `vllm serve` on a free loopback port -> healthy -> EndpointSettings for `OpenAIEngine` -> ended

Needs vLLM on the machine (it is no dependency of this project; `docs/serving.md`). A server that batches requests as
they come does not promise the same bits twice; the engine in this process does.
"""

import contextlib
import os
import secrets
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
from aot_core.rl.adapters import ApartAdapter

_LOG_TAIL = 2000
"""Characters of the server's messages that an error shows."""
_TOLD = "Its last messages:"
_ENDING_SECONDS = 30.0


def serve_command(
    program: str, model: Path, port: int, name: str, settings: VllmSettings, dtype: str, adapter: ApartAdapter | None
) -> list[str]:
    """The command line that serves a model under a name; with an adapter, it is the adapted model that has the name."""
    base = name if adapter is None else f"{name}-base"
    command = [program, "serve", str(model), "--host", "127.0.0.1", "--port", str(port), "--served-model-name", base]
    if not any(argument.partition("=")[0] == "--dtype" for argument in settings.arguments):
        command += ["--dtype", dtype]
    if adapter is not None:
        command += ["--enable-lora", "--max-lora-rank", str(adapter.max_rank)]
        command += ["--lora-modules", f"{name}={adapter.folder}"]
    return [*command, *settings.arguments]


@contextmanager
def vllm_server(
    model: Path, settings: VllmSettings, log: Path, dtype: str, adapter: ApartAdapter | None = None
) -> Iterator[EndpointSettings]:
    """Serve a transformers folder while the context lasts.

    Args:
        model: weights, processor and chat template.
        log: the server's messages.
        dtype: to compute in, unless the settings' arguments say otherwise. Left to itself vLLM answers from float32
            weights in 16 bits: not the model that is evaluated.
        adapter: on top of the weights.

    Raises EngineError where vLLM is not installed, does not become healthy, or ends while it is asked.
    """
    program = shutil.which("vllm")
    if program is None:
        raise EngineError(
            "vLLM is to answer, and there is no `vllm` on this machine's path; install it (pip install vllm), or leave "
            "the setting out: transformers then answers in this process"
        )
    port = _free_port()
    # A name that no other server has: another's on this port, were it taken meanwhile, is not mistaken for this one.
    name = f"defender-{secrets.token_hex(8)}"
    with log.open("wb") as stream:
        process = subprocess.Popen(
            serve_command(program, model, port, name, settings, dtype, adapter),
            stdout=stream,
            stderr=stream,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            _wait_until_healthy(process, f"http://127.0.0.1:{port}", name, settings.start_seconds, log)
            yield EndpointSettings(
                url=f"http://127.0.0.1:{port}/v1",
                model=name,
                concurrency=settings.concurrency,
                timeout_seconds=settings.timeout_seconds,
            )
        except EngineError as error:
            if (code := process.poll()) is None or _TOLD in str(error):
                raise
            raise EngineError(
                f"vllm serve ended with code {code} while it was asked: {error}. {_last_words(log)}"
            ) from error
        finally:
            _end(process)


def _wait_until_healthy(process: "subprocess.Popen[bytes]", address: str, name: str, seconds: float, log: Path) -> None:
    deadline = time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(httpx.HTTPError, ValueError, LookupError, TypeError):
            served = httpx.get(f"{address}/v1/models", timeout=5, trust_env=False).json()["data"]
            if name in [model["id"] for model in served]:
                return
        time.sleep(0.5)
    code = process.poll()
    what = f"did not become healthy within {seconds:g} s" if code is None else f"ended with code {code}"
    raise EngineError(f"vllm serve {what}; see evaluate.benchmarks.vllm.arguments. {_last_words(log)}")


def _last_words(log: Path) -> str:
    return f"{_TOLD}\n{log.read_text(encoding='utf-8', errors='replace')[-_LOG_TAIL:]}"


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
