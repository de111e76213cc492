"""Runs every stage in a process of its own: what a stage leaks or breaks dies with it.

The child shares the terminal, so its progress is seen live. When the caller is interrupted the child is ended with
it; when the caller is killed the child goes on, and the next start waits for it (the store's lock) and takes over
its result.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from aot_core.contracts.spec import Place, StageResult, StageSpec
from aot_core.launch.outcome import result_or_error
from aot_core.launch.protocol import Patience, StopRequested, demand_gpu_of_this_machine, never

_GRACE_SECONDS = 20


class SubprocessLauncher:
    """`python -m aot_core.stages` with the caller's interpreter and environment."""

    def __init__(self, stage_seconds: float | None = None, stop_requested: StopRequested = never) -> None:
        self._stage_seconds, self._stop_requested = stage_seconds, stop_requested

    def check(self, place: Place) -> None:
        """See `Launcher.check`."""
        demand_gpu_of_this_machine(place)

    def run(self, spec: StageSpec) -> StageResult:
        """See `Launcher.run`."""
        patience = Patience(spec.stage, self._stage_seconds, self._stop_requested)
        with tempfile.TemporaryDirectory(prefix="aot-spec-") as folder:
            spec_file, result_file = Path(folder) / "spec.json", Path(folder) / "result.json"
            spec_file.write_text(spec.model_dump_json(), encoding="utf-8")
            command = [sys.executable, "-m", "aot_core.stages", str(spec_file), str(result_file)]
            with subprocess.Popen(command, env=os.environ | _environment(spec.place)) as child:
                try:
                    while (code := _wait(child)) is None:
                        patience.demand()
                except BaseException:
                    _end(child)
                    raise
            said = result_file.read_bytes() if result_file.is_file() else None
            return result_or_error(spec.stage, StageResult.model_validate_json(said) if said else None, code)


def _environment(place: Place) -> dict[str, str]:
    threads = {"OMP_NUM_THREADS": str(place.threads)}
    return threads if place.gpu is None else threads | {"CUDA_VISIBLE_DEVICES": place.gpu}


def _wait(child: "subprocess.Popen[bytes]") -> int | None:
    """The exit code, None while it runs."""
    try:
        return child.wait(1)
    except subprocess.TimeoutExpired:
        return None


def _end(child: "subprocess.Popen[bytes]") -> None:
    child.terminate()
    try:
        child.wait(_GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
