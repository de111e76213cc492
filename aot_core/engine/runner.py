"""Runs one stage from its spec: looks in the store first, and leaves a record behind when it is done.

The one way a stage runs, whatever launches it: the in-process launcher calls `execute`, the others start
`python -m aot_core.stages SPEC.json`, which calls it too.
"""

import contextlib
import importlib.metadata
import logging
import os
import shutil
import subprocess
import tempfile
import time
from contextlib import suppress
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path

from aot_core.contracts.artifact import StageRecord
from aot_core.contracts.errors import (
    StageBadInputError,
    StageCrashedError,
    StageError,
    StageNoRoomError,
    StageOutOfMemoryError,
)
from aot_core.contracts.spec import StageResult, StageSpec
from aot_core.engine.context import StageContext
from aot_core.engine.identity import contract_class
from aot_core.engine.parallel import run_in_processes
from aot_core.home import no_room
from aot_core.startup import quick_imports, stage_imports
from aot_core.store import LocalStore, open_store
from aot_core.store.protocol import Store
from aot_core.tracking.protocol import NullTracker, Tracker

logger = logging.getLogger(__name__)

_LEFT_SECONDS = 7 * 24 * 3600
_RECORDED_PACKAGES = (
    "torch", "transformers", "diffusers", "trl", "peft", "datasets", "great-expectations", "mlflow"
)  # fmt: skip


def execute(spec: StageSpec) -> StageResult:
    """Run a stage, or find that it has run.

    Raises StageBadInputError, StageNoRoomError, StageOutOfMemoryError or StageCrashedError; the store then holds
    nothing of it.
    """
    try:
        return _execute(spec)
    except Exception as error:
        if told := no_room(error):
            raise StageNoRoomError(f"{spec.stage}: {told}") from error
        raise


def _execute(spec: StageSpec) -> StageResult:
    store = open_store(spec.place.store, spec.place.s3)
    with store.lock(spec.stage, spec.key):
        record = store.find(spec.stage, spec.key)
        if record is not None:
            return StageResult(record=record, reused=True)
        scratch = Path(tempfile.mkdtemp(prefix=f"aot-{spec.stage}-"))
        try:
            output = scratch / "output"
            output.mkdir()
            started, clock = datetime.now(UTC), time.monotonic()
            device = resolve_device(spec.place.device)
            progress = progress_folder(store, spec)
            context = StageContext(store, output, scratch, device, tracker_of(spec), spec.place.threads, progress)
            logger.info("%s: started on %s, key %s", spec.stage, device, spec.key[:12])
            outputs = run_stage(spec, context) if spec.processes == 1 else run_in_processes(spec, context)
            seconds = time.monotonic() - clock
            record = StageRecord(
                stage=spec.stage,
                key=spec.key,
                identity=spec.identity,
                artifact=store.put(spec.stage, spec.key, output),
                outputs=outputs,
                seconds=seconds,
                device=device,
                git_commit=git_commit(),
                image_digest=os.environ.get("AOT_IMAGE_DIGEST", ""),
                packages=_installed_versions(),
                started_at=started.isoformat(timespec="seconds"),
            )
            store.seal(record)
            shutil.rmtree(progress, ignore_errors=True)
            logger.info("%s: finished after %.1f s", spec.stage, seconds)
            return StageResult(record=record)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)


def _installed_versions() -> dict[str, str]:
    """Of the recorded packages that are there: one family's environment need not hold the other's."""
    versions: dict[str, str] = {}
    for name in _RECORDED_PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return versions


def find(spec: StageSpec) -> StageRecord | None:
    """The record of a stage that has run, by the store alone."""
    return open_store(spec.place.store, spec.place.s3).find(spec.stage, spec.key)


def run_stage(spec: StageSpec, context: StageContext) -> dict[str, object]:
    """Call `run_<stage>` and sort what it raises by whether trying again can help.

    Raises StageBadInputError, StageOutOfMemoryError or StageCrashedError.
    """
    with stage_imports():
        import torch

        run = getattr(import_module(f"aot_core.stages.{spec.stage}"), f"run_{spec.stage}")
    torch.set_num_threads(spec.place.threads)
    config = contract_class(spec.stage, "Config").model_validate(spec.config)
    inputs = contract_class(spec.stage, "Inputs").model_validate(spec.inputs)
    try:
        return run(config, inputs, context).model_dump(mode="json")
    except StageError:
        raise
    except (MemoryError, torch.OutOfMemoryError) as error:
        raise StageOutOfMemoryError(
            f"{spec.stage}: out of memory on {context.device}: {error}; lower the batch size in [{spec.stage}] or set "
            "gradient_checkpointing = true"
        ) from error
    except ValueError as error:
        raise StageBadInputError(f"{spec.stage}: {error}") from error
    except Exception as error:
        raise StageCrashedError(f"{spec.stage}: {type(error).__name__}: {error}") from error


def progress_folder(store: Store, spec: StageSpec) -> Path:
    """Where this stage, should its process die, finds what it had reached: beside a store in a folder, else among the
    machine's temporary files (a container that is to go on elsewhere names a volume in AOT_PROGRESS).

    What other stages left there for more than a week is removed.
    """
    beside = store.root / ".progress" if isinstance(store, LocalStore) else Path(tempfile.gettempdir(), "aot-progress")
    stages = Path(os.environ.get("AOT_PROGRESS") or beside)
    own = stages / spec.stage / spec.key
    for left in stages.glob("*/*"):
        # Stages that run beside this one remove their own folders when they finish.
        with suppress(FileNotFoundError, NotADirectoryError):
            # A folder's own time stands still while what lies in it is written.
            touched = max(path.stat().st_mtime for path in (left, *left.iterdir()))
            if left != own and touched < time.time() - _LEFT_SECONDS:
                shutil.rmtree(left, ignore_errors=True)
    return own


def resolve_device(device: str) -> str:
    """ "auto" is the GPU where there is one. Raises StageBadInputError for "cuda" on a machine without."""
    with quick_imports():
        import torch

    if device == "cuda" and not torch.cuda.is_available():
        raise StageBadInputError("place.device is 'cuda' and this machine has no usable GPU; use --device auto or cpu")
    return ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device


def git_commit() -> str:
    """The commit of the source tree, with "-dirty" where it was changed; "" outside a checkout."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=40"]
    baked = os.environ.get("AOT_GIT_COMMIT", "")
    try:
        return baked or subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    except FileNotFoundError:
        return ""


def tracker_of(spec: StageSpec) -> Tracker:
    """What the spec says to log to."""
    if spec.place.tracking is None:
        return NullTracker()
    with quick_imports():
        from aot_core.tracking.mlflow_tracking import MlflowTracker

    return MlflowTracker(spec.place.tracking.uri, spec.place.tracking.run_id)
