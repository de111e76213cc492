"""What a stage is given besides its config and inputs: folders, device and tracker. Imports without torch."""

from dataclasses import dataclass, field
from pathlib import Path

from aot_core.base_models.names import model_folder
from aot_core.contracts.artifact import ArtifactRef, ExternalRef
from aot_core.store.protocol import Store
from aot_core.tracking.protocol import NullTracker, Tracker


@dataclass(frozen=True)
class StageContext:
    """Where a stage runs. Nothing in here may change its result."""

    store: Store
    output: Path
    """The stage writes its artifact here; the runner puts the folder into the store when the stage returns."""
    scratch: Path
    """For files that need not outlive the stage."""
    device: str = "cpu"
    """"cpu" or "cuda"; a stage moves its models there."""
    tracker: Tracker = field(default_factory=NullTracker)
    threads: int = 1
    """How many worker processes a stage may start."""
    progress: Path | None = None
    """For what a killed stage needs to go on: the same folder for the same stage key, cleared when the stage is done.
    None: nothing outlives the process."""

    def fetch(self, ref: ArtifactRef) -> Path:
        """The local folder of an input artifact. Read only."""
        return self.store.fetch(ref)

    def model(self, ref: ExternalRef) -> str:
        """The name or folder to hand to `from_pretrained`."""
        return str(model_folder(ref.name) or ref.name)
