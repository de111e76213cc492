"""The smoke test in a container of the stage image: the orchestrator's image (`control`) has no torch."""

from dataclasses import dataclass
from types import TracebackType
from typing import Self

from aot_core.contracts.errors import LauncherError
from aot_core.contracts.launch import DockerSettings
from aot_core.contracts.spec import Place
from aot_core.launch.errand import run_errand
from aot_core.tracking.smoke import SmokeError, read_answer


@dataclass(frozen=True)
class ContainerSmoke:
    """As `aot_core.tracking.smoke.SmokeTest`, but in a container for each model."""

    uri: str
    """MLflow's tracking URI."""
    seconds: float
    """How long one model may take to load and to answer."""
    place: Place
    """Its tracking target decides what is mounted."""
    settings: DockerSettings

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def check(self, address: str) -> str:
        """Load and ask a model; returns its first answer. Raises SmokeError."""
        command = ["-m", "aot_core.tracking.smoke", self.uri, address]
        try:
            ended = run_errand(self.place, self.settings, command, self.seconds)
        except LauncherError as error:
            raise SmokeError(f"{address}: {error}") from error
        lines = ended.said.splitlines()
        if not lines:
            raise SmokeError(f"{address}: its container ended with code {ended.code}: {ended.complained.strip()}")
        return read_answer(address, lines[-1])
