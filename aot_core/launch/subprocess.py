"""Runs every stage in a process of its own: what a stage leaks or breaks dies with it.

The child shares the terminal, so its progress is seen live. When the caller is interrupted the child is ended with
it; when the caller is killed the child goes on, and the next start waits for it (the store's lock) and takes over
its result.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from aot_core.contracts.errors import StageBadInputError, StageCrashedError, StageOutOfMemoryError
from aot_core.contracts.spec import StageResult, StageSpec

_GRACE_SECONDS = 20
_ERRORS = {"bad_input": StageBadInputError, "out_of_memory": StageOutOfMemoryError, "crash": StageCrashedError}


class SubprocessLauncher:
    """`python -m aot_core.stages` with the caller's interpreter and environment."""

    def run(self, spec: StageSpec) -> StageResult:
        """See `Launcher.run`."""
        with tempfile.TemporaryDirectory(prefix="aot-spec-") as folder:
            spec_file, result_file = Path(folder) / "spec.json", Path(folder) / "result.json"
            spec_file.write_text(spec.model_dump_json())
            command = [sys.executable, "-m", "aot_core.stages", str(spec_file), str(result_file)]
            threads = {"OMP_NUM_THREADS": str(spec.place.threads)}
            with subprocess.Popen(command, env=os.environ | threads) as child:
                try:
                    code = child.wait()
                except BaseException:
                    _end(child)
                    raise
            if not result_file.is_file():
                raise StageCrashedError(
                    f"{spec.stage}: its process ended with {_describe(code)} and said nothing; its log is above"
                )
            result = StageResult.model_validate_json(result_file.read_bytes())
            if result.error:
                raise _ERRORS[result.error](result.message)
            return result


def _end(child: "subprocess.Popen[bytes]") -> None:
    child.terminate()
    try:
        child.wait(_GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def _describe(code: int) -> str:
    """-9 is what the kernel's out-of-memory killer leaves, among others."""
    return f"signal {-code}" + (" (out of memory?)" if code == -9 else "") if code < 0 else f"exit code {code}"
