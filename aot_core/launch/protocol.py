"""How a stage gets a process. One protocol, so that a flow does not know the difference."""

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from aot_core.contracts.errors import LauncherError, StageCancelledError, StageTimeoutError
from aot_core.contracts.spec import Place, StageResult, StageSpec

StopRequested = Callable[[], bool]
"""Asked every few seconds while a stage runs: has somebody cancelled it?"""


class Launcher(Protocol):
    """Starts a stage and waits for it."""

    def check(self, place: Place) -> None:
        """Raises LauncherError where no stage can be run at such a place; asked before anything is started."""
        ...

    def run(self, spec: StageSpec) -> StageResult:
        """Run to the end. Raises a StageError of the kind that the stage's process reported.

        Whatever ends this call also ends the stage's process, except a kill: then the next `run` finds it again.
        """
        ...


def never() -> bool:
    """Nobody cancels."""
    return False


class Patience:
    """How long a launcher waits for a stage: until its time limit, or until it is cancelled."""

    _ASK_EVERY = 5.0

    def __init__(self, stage: str, seconds: float | None, stop_requested: StopRequested) -> None:
        self._stage, self._seconds, self._stop_requested = stage, seconds, stop_requested
        self._since = self._asked = time.monotonic()

    def demand(self) -> None:
        """Raises StageTimeoutError or StageCancelledError once the stage must end."""
        now = time.monotonic()
        if self._seconds is not None and now - self._since > self._seconds:
            raise StageTimeoutError(
                f"{self._stage}: not finished after {self._seconds / 3600:.2g} h, and ended; raise run.stage_hours, or "
                "make the stage smaller"
            )
        if now - self._asked > self._ASK_EVERY:
            self._asked = now
            if self._stop_requested():
                raise StageCancelledError(f"{self._stage}: cancelled, and ended")


def demand_gpu_of_this_machine(place: Place) -> None:
    """Raises LauncherError where a place wants a GPU and this machine's kernel knows of none. Imports no torch."""
    devices = ("/dev/nvidiactl", "/dev/dxg", "/dev/kfd")
    if place.device == "cuda" and not any(Path(d).exists() for d in devices) and not shutil.which("nvidia-smi"):
        raise LauncherError(
            "run.device is 'cuda' and this machine has no GPU that its kernel knows of; install the driver, or use "
            "--device auto or cpu"
        )
