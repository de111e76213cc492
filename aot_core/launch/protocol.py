"""How a stage gets a process. One protocol, so that a flow does not know the difference."""

from typing import Protocol

from aot_core.contracts.spec import StageResult, StageSpec


class Launcher(Protocol):
    """Starts a stage and waits for it."""

    def run(self, spec: StageSpec) -> StageResult:
        """Run to the end. Raises a StageError of the kind that the stage's process reported."""
        ...
