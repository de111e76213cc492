"""Launchers: how a stage gets a process. `open_launcher` picks one by a campaign's settings."""

from collections.abc import Callable

from aot_core.contracts.artifact import StageRecord
from aot_core.contracts.campaign import RunSettings
from aot_core.contracts.spec import StageResult, StageSpec
from aot_core.launch.inprocess import InProcessLauncher
from aot_core.launch.protocol import Launcher, StopRequested, never
from aot_core.launch.subprocess import SubprocessLauncher


def open_launcher(
    settings: RunSettings,
    execute: Callable[[StageSpec], StageResult],
    find: Callable[[StageSpec], StageRecord | None],
    stop_requested: StopRequested = never,
) -> Launcher:
    """The launcher that a campaign's `[run]` names.

    Args:
        execute: what the in-process launcher calls: launchers stand below the stages and do not import them.
        find: looks a finished stage up in its store: where only the store is shared, a result is read there.
        stop_requested: asked every few seconds while a stage runs; True ends it.
    """
    seconds = settings.stage_hours * 3600 if settings.stage_hours else None
    if settings.launcher == "inprocess":
        return InProcessLauncher(execute)
    if settings.launcher == "subprocess":
        return SubprocessLauncher(seconds, stop_requested)
    if settings.launcher == "docker":
        from aot_core.launch.docker import DockerLauncher  # imports slowly

        return DockerLauncher(settings.docker, seconds, stop_requested)
    from aot_core.launch.kubernetes import KubernetesLauncher

    return KubernetesLauncher(settings.kubernetes, find, seconds, stop_requested)


__all__ = ["Launcher", "open_launcher"]
