"""A stage of several processes: one process keeps the store's lock and the record, N others train together.

`execute` calls `run_in_processes`, which has `accelerate launch` start this module N times:
`python -m aot_core.engine.parallel JOB.json`. Each of the N runs the same `run_<stage>`; libraries that know of the
others (accelerate, TRL) do the rest. Process 0 writes into the stage's output folder and says how it went; the others
write into folders that are thrown away. Spec in, outputs of process 0 out, beside it what the first of them that failed
said.
"""

import logging
import os
import subprocess
import sys
import threading
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field

from aot_core.contracts.base import Frozen
from aot_core.contracts.errors import StageBadInputError, StageCrashedError, StageError, StageOutOfMemoryError
from aot_core.contracts.spec import StageSpec
from aot_core.engine.context import StageContext
from aot_core.startup import quick_exit, quick_imports
from aot_core.tracking.protocol import NullTracker

logger = logging.getLogger(__name__)

_GRACE_SECONDS = 20
ErrorKind = Literal["bad_input", "out_of_memory", "crash"]
_ERRORS: dict[ErrorKind, type[StageError]] = {
    "bad_input": StageBadInputError,
    "out_of_memory": StageOutOfMemoryError,
    "crash": StageCrashedError,
}
"""The most informative first: where one process fails, the others fail because it is gone."""


class Job(Frozen):
    """`JOB.json`: what each of the processes is given."""

    spec: StageSpec
    output: Path
    scratch: Path
    progress: Path | None
    device: str
    parent: int
    """The process that waits for the result; the others end when it is gone."""


class Report(Frozen):
    """What a process reports when it is done: `outputs`, or the error's kind and message."""

    outputs: dict[str, Any] = Field(default_factory=dict)
    error: ErrorKind | Literal[""] = ""
    message: str = ""


def run_in_processes(spec: StageSpec, context: StageContext) -> dict[str, Any]:
    """Run a stage in `spec.processes` processes and wait for them.

    Raises StageBadInputError where the machine lacks GPUs or packages that it takes, and what the processes raised.
    """
    _demand(spec, context.device)
    folder = context.scratch / "processes"
    folder.mkdir()
    job = Job(
        spec=spec,
        output=context.output,
        scratch=folder,
        progress=context.progress,
        device=context.device,
        parent=os.getpid(),
    )
    (folder / "job.json").write_text(job.model_dump_json())
    command = _command(spec, folder)
    logger.info("%s: %d processes", spec.stage, spec.processes)
    with subprocess.Popen(command, env=os.environ | {"OMP_NUM_THREADS": str(spec.place.threads)}) as launched:
        try:
            code = launched.wait()
        except BaseException:
            _end(launched)
            raise
    return _judge(spec, folder, code)


def _demand(spec: StageSpec, device: str) -> None:
    """Raises StageBadInputError for what this machine lacks, before any process is started."""
    import torch

    kind = _distributed_type(spec)
    if kind and device == "cpu":
        raise StageBadInputError(
            f"run.accelerate asks for {kind}, which shares weights out over GPUs, and {spec.stage} runs on the CPU; "
            "leave it out, or give the stage GPUs"
        )
    if kind == "DEEPSPEED" and find_spec("deepspeed") is None:
        raise StageBadInputError(
            "run.accelerate asks for DeepSpeed: the package deepspeed is not installed; install it, or use "
            "configs/accelerate/fsdp.yaml"
        )
    if device == "cuda" and torch.cuda.device_count() < spec.processes:
        raise StageBadInputError(
            f"{spec.stage}.processes is {spec.processes} and this machine has {torch.cuda.device_count()} usable GPUs; "
            f"lower {spec.stage}.processes, or give the stage more (CUDA_VISIBLE_DEVICES, run.kubernetes.gpus)"
        )


def _distributed_type(spec: StageSpec) -> str:
    """FSDP or DEEPSPEED, as run.accelerate's file says; "" without one."""
    if not spec.place.accelerate:
        return ""
    try:
        kind = yaml.safe_load(spec.place.accelerate)["distributed_type"]
    except (yaml.YAMLError, KeyError, TypeError) as error:
        raise StageBadInputError(
            f"run.accelerate: not a config of accelerate ({type(error).__name__}: {error}); see configs/accelerate/, "
            "or write one with `accelerate config`"
        ) from error
    return "" if kind in ("MULTI_GPU", "NO") else str(kind)


def _command(spec: StageSpec, folder: Path) -> list[str]:
    """`accelerate launch` on this machine, by the config file where there is one, else plain DDP."""
    how = ["--multi_gpu", "--mixed_precision", "no", "--dynamo_backend", "no"]  # the trainer's arguments tell the rest
    if spec.place.accelerate:
        config = folder / "accelerate.yaml"
        config.write_text(spec.place.accelerate)
        how = ["--config_file", str(config)]
    count = ["--num_processes", str(spec.processes), "--num_machines", "1", "--main_process_port", "0"]
    launch = [sys.executable, "-m", "accelerate.commands.launch", *how, *count]
    return [*launch, "-m", "aot_core.engine.parallel", str(folder / "job.json")]


def _judge(spec: StageSpec, folder: Path, code: int) -> dict[str, Any]:
    reports = [Report.model_validate_json(path.read_bytes()) for path in sorted(folder.glob("report-*.json"))]
    for kind, error in _ERRORS.items():
        for report in reports:
            if report.error == kind:
                raise error(report.message)
    first = folder / "report-0.json"
    if code or not first.is_file():
        raise StageCrashedError(f"{spec.stage}: its {spec.processes} processes ended with exit code {code}")
    return Report.model_validate_json(first.read_bytes()).outputs


def _end(launched: "subprocess.Popen[bytes]") -> None:
    launched.terminate()
    try:
        launched.wait(_GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        launched.kill()


def main() -> int:
    """One of the processes. Its exit code only tells the launcher whether to end the others."""
    with quick_imports():
        import torch

        from aot_core.engine.runner import run_stage, tracker_of
        from aot_core.store import open_store

    quick_exit()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s")
    job = Job.model_validate_json(Path(sys.argv[1]).read_bytes())
    rank = int(os.environ["RANK"])
    threading.Thread(target=_end_with, args=(job.parent,), daemon=True, name="parent watch").start()
    if job.device == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))  # "cuda" is then this process's own
    own = job.scratch / f"process-{rank}"
    output = job.output if rank == 0 else own / "output"
    output.mkdir(parents=True, exist_ok=True)
    context = StageContext(
        open_store(job.spec.place.store, job.spec.place.s3),
        output,
        own,
        job.device,
        tracker_of(job.spec) if rank == 0 else NullTracker(),
        job.spec.place.threads,
        job.progress,
    )
    try:
        report = Report(outputs=run_stage(job.spec, context))
    except StageError as error:
        logging.exception("process %d did not finish", rank)
        kind: ErrorKind = next(name for name, one in _ERRORS.items() if isinstance(error, one))
        report = Report(error=kind, message=str(error))
    partial = job.scratch / f"report-{rank}.partial"
    partial.write_text(report.model_dump_json())
    partial.rename(partial.with_suffix(".json"))
    return 1 if report.error else 0


def _end_with(parent: int) -> None:
    """End this process soon after its parent, however that died: a restart must find the GPUs free and the progress
    folder to itself."""
    while True:
        try:
            os.kill(parent, 0)
        except ProcessLookupError:
            os._exit(1)
        time.sleep(0.5)


if __name__ == "__main__":
    sys.exit(main())
