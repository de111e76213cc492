"""Runs a stage in the caller's process: no start-up cost, progress bars in the terminal. For laptops and tests."""

from collections.abc import Callable

from aot_core.contracts.spec import Place, StageResult, StageSpec
from aot_core.launch.protocol import demand_gpu_of_this_machine


class InProcessLauncher:
    """Calls the stage runner that it is handed (launchers stand below the stages and do not import them)."""

    def __init__(self, execute: Callable[[StageSpec], StageResult]) -> None:
        self._execute = execute

    def check(self, place: Place) -> None:
        """See `Launcher.check`."""
        demand_gpu_of_this_machine(place)

    def run(self, spec: StageSpec) -> StageResult:
        """See `Launcher.run`."""
        return self._execute(spec)
