"""What a stage may log. MLflow is one implementation, doing nothing the other."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL.Image import Image


class TrackingError(ValueError):
    """MLflow's database or server cannot be used. The message says why, and what to do."""


class Tracker(Protocol):
    """Metrics and pictures of one round. Keys are `family/name`: `attacker/reward`, `defender/entropy`."""

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log figures, live, at a training step."""
        ...

    def log_image(self, name: str, image: "Image") -> None:
        """Log a picture as an artifact: `gallery/attacks.png`."""
        ...

    def log_figure(self, name: str, figure: "Figure") -> None:
        """Log a matplotlib figure as an artifact: `curves/reward.png`."""
        ...

    def log_artifact(self, path: Path, folder: str = "") -> None:
        """Log a file or a folder under `folder`."""
        ...

    def set_tag(self, key: str, value: str) -> None:
        """Set a tag of the round's run: where something is stored, what something is."""
        ...


class NullTracker:
    """Logs nothing: for a stage run by hand or in a test."""

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None: ...

    def log_image(self, name: str, image: "Image") -> None: ...

    def log_figure(self, name: str, figure: "Figure") -> None: ...

    def log_artifact(self, path: Path, folder: str = "") -> None: ...

    def set_tag(self, key: str, value: str) -> None: ...
