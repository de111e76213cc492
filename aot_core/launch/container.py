"""What a stage's container is made of: its name, labels, mounts, limits and environment. Pure; nothing is started.

A folder on the host is mounted at the same path inside, so a spec reads the same on both sides.
"""

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from aot_core.base_models.names import SHIPPED, model_folder
from aot_core.contracts.artifact import ExternalRef
from aot_core.contracts.errors import LauncherError
from aot_core.contracts.launch import CONTAINER_ENVIRONMENT, DockerSettings
from aot_core.contracts.paths import local_path
from aot_core.contracts.secrets import variables_in
from aot_core.contracts.spec import Place, StageSpec

SCRATCH = "/scratch"
"""The image's volume: spec, result, cache and temporary files; everything else in there is read-only."""
MODEL_CACHE = "/models"
MANAGED = "aot.managed"
KEY, STAGE, CAMPAIGN, HOME, STORE = "aot.key", "aot.stage", "aot.campaign", "aot.home", "aot.store"


def name_of(spec: StageSpec) -> str:
    """The same stage into the same store has the same name: docker itself refuses a second one."""
    identity = hashlib.sha256(f"{spec.place.store}\n{spec.key}".encode()).hexdigest()
    return f"aot-{spec.stage}-{identity[:20]}"


def labels_of(spec: StageSpec) -> dict[str, str]:
    """By these a container is found again and reaped."""
    return {
        MANAGED: "true",
        KEY: spec.key,
        STAGE: spec.stage,
        CAMPAIGN: spec.place.campaign,
        HOME: spec.place.home,
        STORE: spec.place.store,
    }


def absolute(spec: StageSpec) -> StageSpec:
    """The spec with relative folders made absolute: the container has another working directory."""
    inputs = {name: _absolute(value) for name, value in spec.inputs.items()}
    return spec.model_copy(update={"inputs": inputs})


def mounts_of(spec: StageSpec, settings: DockerSettings) -> dict[str, dict[str, str]]:
    """Host folder to docker's bind: the store and MLflow's SQLite folder to write, sources and models to read."""
    binds = _place_mounts(spec.place, settings)
    for folder in _read_only_folders(spec):
        binds.setdefault(str(folder), {"bind": str(folder), "mode": "ro"})
    return binds


def _place_mounts(place: Place, settings: DockerSettings) -> dict[str, dict[str, str]]:
    binds = {str(folder): {"bind": str(folder), "mode": "rw"} for folder in writable_folders(place)}
    if settings.model_cache:
        binds[str(local_path(settings.model_cache).resolve())] = {"bind": MODEL_CACHE, "mode": "ro"}
    return binds


def writable_folders(place: Place) -> list[Path]:
    """The folders of this machine that a stage writes to: none where store and MLflow are servers."""
    folders: list[Path] = []
    scheme, separator, rest = place.store.partition("://")
    if not separator or scheme == "file":
        folders.append(Path(rest if separator else place.store).resolve())
    if place.tracking is not None and place.tracking.uri.startswith("sqlite:///"):
        folders.append(Path(place.tracking.uri.removeprefix("sqlite:///")).resolve().parent)
    return folders


def user_of(place: Place, settings: DockerSettings) -> str | None:
    """Who the stage runs as; None leaves it to the image."""
    if settings.user:
        return settings.user
    return f"{os.getuid()}:{os.getgid()}" if writable_folders(place) else None


def environment_of(spec: StageSpec, settings: DockerSettings, digest: str, caller: Mapping[str, str]) -> dict[str, str]:
    """What the stage sees: of the caller's environment the listed names alone, and those that its config refers to."""
    secrets = {name: caller[name] for name in variables_in(spec.config) if name in caller}
    return _environment(spec.place, settings, caller) | secrets | {"AOT_IMAGE_DIGEST": digest}


def creation(spec: StageSpec, settings: DockerSettings, digest: str, caller: Mapping[str, str]) -> dict[str, Any]:
    """The keyword arguments of docker's `containers.create`, but for the GPU."""
    return {
        **_confinement(settings),
        "command": [f"{SCRATCH}/spec.json", f"{SCRATCH}/result.json"],
        "name": name_of(spec),
        "labels": labels_of(spec),
        "environment": environment_of(spec, settings, digest, caller),
        "volumes": mounts_of(spec, settings),
        "user": user_of(spec.place, settings),
    }


def errand(place: Place, settings: DockerSettings, command: Sequence[str], caller: Mapping[str, str]) -> dict[str, Any]:
    """The same for a Python command other than a stage: what a stage at that place may do, and no name."""
    return {
        **_confinement(settings),
        "entrypoint": ["python", *command],
        "labels": {MANAGED: "true", HOME: place.home, CAMPAIGN: place.campaign},
        "environment": _environment(place, settings, caller),
        "volumes": _place_mounts(place, settings),
        "user": user_of(place, settings),
    }


def _confinement(settings: DockerSettings) -> dict[str, Any]:
    """What every container of this project may use and may not do."""
    limits: dict[str, Any] = {}
    if settings.memory:
        limits |= {"mem_limit": settings.memory, "memswap_limit": settings.memory}
    if settings.cpus:
        limits["nano_cpus"] = int(settings.cpus * 1e9)
    return {
        "image": settings.image,
        "network": settings.network,
        "shm_size": settings.shm_size,
        "pids_limit": settings.pids,
        "read_only": True,
        "tmpfs": {"/tmp": "rw,nosuid,nodev,size=256m"},
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
        "detach": True,
        **limits,
    }


def demand_reachable(place: Place, settings: DockerSettings, local_daemon: bool) -> None:
    """Raises LauncherError where a container could not reach its store or its tracker."""
    remote = [uri for uri in (place.store, place.tracking.uri if place.tracking else "") if _is_remote(uri)]
    if remote and settings.network == "none":
        raise LauncherError(
            f"run.docker.network is 'none' and stages must reach {remote[0]}; set it to 'bridge', 'host' or a network"
        )
    if not local_daemon and writable_folders(place):
        raise LauncherError(
            f"DOCKER_HOST is another machine, which does not see {writable_folders(place)[0]}; set run.store to a "
            "bucket and MLFLOW_TRACKING_URI to a server"
        )


def _environment(place: Place, settings: DockerSettings, caller: Mapping[str, str]) -> dict[str, str]:
    known = {*CONTAINER_ENVIRONMENT, *variables_in(place.s3.model_dump(mode="json"))}
    passed = {name: caller[name] for name in known if name in caller}
    return passed | {"OMP_NUM_THREADS": str(place.threads)} | ({"HF_HOME": MODEL_CACHE} if settings.model_cache else {})


def _is_remote(uri: str) -> bool:
    return uri.partition("://")[0] in {"s3", "http", "https"}


def _read_only_folders(spec: StageSpec) -> list[Path]:
    """Sources and models that lie on this machine; what is shipped lies in the image too."""
    names = [value["name"] for value in spec.inputs.values() if _is_external(value)]
    found = (Path(name) for name in names if name.startswith("/"))
    return [folder for folder in found if folder.is_dir() and not folder.is_relative_to(SHIPPED)]


def _is_external(value: Any) -> bool:
    return isinstance(value, dict) and set(value) == set(ExternalRef.model_fields)  # pyright: ignore[reportUnknownArgumentType]: JSON


def _absolute(value: Any) -> Any:
    if not _is_external(value) or not value["sha256"]:
        return value
    folder = Path(value["name"])
    if not folder.is_absolute() and not value["name"].startswith("aot-"):
        folder = model_folder(value["name"]) or folder
    return {**value, "name": str(folder)}
