"""What this machine can run. Every line says what was found and, if something is missing, how to get it."""

import importlib.metadata
import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from aot_core.base_models.names import UnknownModelError, model_folder
from aot_core.contracts.explaining import without_credentials
from aot_core.contracts.terminal import console, print_json, table
from aot_core.home import Home

_PACKAGES = ("torch", "transformers", "diffusers", "peft", "trl", "datasets", "prefect", "mlflow", "great-expectations")
_MIN_DISK_GIB, _MIN_MEMORY_GIB = 5, 6


@dataclass(frozen=True)
class Finding:
    what: str
    found: str
    level: Literal["ok", "note", "missing"]
    advice: str = ""


def print_diagnosis(root: Path, *, as_json: bool = False) -> int:
    """Print the findings, or list them as JSON; returns 1 where the tiny campaign cannot run here, else 0."""
    printed = table("", "what", "found", "", "what to do")
    colours = {"ok": "[green]ok", "note": "[yellow]note", "missing": "[red]missing"}
    findings = list(diagnose(root))
    if as_json:
        print_json([asdict(finding) for finding in findings])
    for finding in findings:
        printed.add_row(finding.what, finding.found, colours[finding.level], finding.advice)
    if not as_json:
        console().print(printed)
    return int(any(f.level == "missing" for f in findings))


def diagnose(root: Path) -> Iterator[Finding]:
    """All findings, cheapest first."""
    version = ".".join(map(str, sys.version_info[:3]))
    fine = sys.version_info >= (3, 11)
    yield Finding("python", version, "ok" if fine else "missing", "" if fine else "install Python 3.11 or newer")
    for name in _PACKAGES:
        try:
            yield Finding(name, importlib.metadata.version(name), "ok")
        except importlib.metadata.PackageNotFoundError:
            yield Finding(name, "-", "missing", "make setup")
    for name in ("aot-tiny-vl", "aot-tiny-edit"):
        try:
            yield Finding(name, str(model_folder(name)), "ok")
        except UnknownModelError:
            yield Finding(name, "-", "missing", "make base-models")
    yield _disk(root)
    yield _memory()
    yield from _accelerators()
    docker = next((p for p in ("/var/run/docker.sock", "/run/docker.sock") if Path(p).exists()), None)
    yield Finding(
        "docker socket",
        docker or "-",
        "ok" if docker else "note",
        "" if docker else "only needed for --launcher docker",
    )
    for variable in ("PREFECT_API_URL", "MLFLOW_TRACKING_URI"):
        address = without_credentials(os.environ.get(variable, "not set"))
        yield Finding(variable, address, "ok", "if not set, the embedded one in --home")


def _disk(root: Path) -> Finding:
    existing = next(p for p in (Home(root).root, *Home(root).root.parents) if p.exists())
    free = shutil.disk_usage(existing).free / 2**30
    fine = free >= _MIN_DISK_GIB
    return Finding(
        "disk for --home",
        f"{free:.0f} GiB free",
        "ok" if fine else "missing",
        "" if fine else "name a larger disk with --home",
    )


def _memory() -> Finding:
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    fine = total >= _MIN_MEMORY_GIB
    return Finding(
        "memory",
        f"{total:.0f} GiB",
        "ok" if fine else "missing",
        "" if fine else f"at least {_MIN_MEMORY_GIB} GiB are needed",
    )


def _accelerators() -> Iterator[Finding]:
    try:
        import torch
    except ImportError:
        return
    if not torch.cuda.is_available():
        yield Finding("GPU", "none", "note", "configs/tiny.toml runs without; configs/paper.toml needs GPUs")
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        yield Finding(f"GPU {index}", f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB", "ok")
