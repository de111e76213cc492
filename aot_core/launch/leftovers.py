"""Containers that nobody waits for any more: a killed orchestrator's, whose campaign was not started again."""

# pyright: basic
# docker's SDK carries no types.

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from docker.errors import DockerException, NotFound

from aot_core.launch.container import CAMPAIGN, HOME, MANAGED
from aot_core.launch.docker import connect


def reap(home: str, is_running: Callable[[str], bool], older_than: float) -> list[str]:
    """Stop and remove the containers of a home's campaigns that no process is running; returns their names.

    Args:
        is_running: whether a campaign's process lives, by the campaign's key.
        older_than: a container is left alone for so many seconds: its campaign may be about to be started again, and
            would take its result over.

    Raises LauncherError where no docker daemon answers.
    """
    reaped: list[str] = []
    found = connect().containers.list(
        all=True, ignore_removed=True, filters={"label": [f"{MANAGED}=true", f"{HOME}={home}"]}
    )
    for container in found:
        if is_running(container.labels.get(CAMPAIGN, "")) or _age(container) < older_than:
            continue
        try:
            container.remove(force=True, v=True)
        except NotFound:
            continue
        except DockerException:
            if container.status != "removing":
                raise
        reaped.append(container.name)
    return reaped


def _age(container: Any) -> float:
    """Seconds since it was created; docker writes nanoseconds, which Python does not read."""
    created = datetime.fromisoformat(container.attrs["Created"][:19]).replace(tzinfo=UTC)
    return (datetime.now(UTC) - created).total_seconds()
