"""Does a registered model load, and does it answer? Asked in a process of its own, which a broken model may crash.

`python -m aot_core.tracking.smoke TRACKING_URI` reads model addresses (`models:/aot-defender@champion`), a line each,
loads each as its users do, asks it its own input example, and writes a line of JSON back: the answers, or the error.
One process serves a whole promotion: importing torch is most of the time. Addresses may be arguments too.
"""

import json
import logging
import os
import sys
import threading
from subprocess import PIPE, Popen
from types import TracebackType
from typing import Any, Self

from aot_core.contracts.errors import ToldError


class SmokeError(ToldError, RuntimeError):
    """A registered model does not load, or does not answer."""


class SmokeTest:
    """A context manager around the process; `check` asks it about a model."""

    def __init__(self, uri: str, seconds: float) -> None:
        """
        Args:
            uri: MLflow's tracking URI.
            seconds: how long one model may take to load and to answer.
        """
        self.uri, self.seconds = uri, seconds
        self._process: Popen[str] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()

    def check(self, address: str) -> str:
        """Load and ask a model; returns its first answer. Raises SmokeError."""
        process = self._process = self._process or Popen(
            [sys.executable, "-m", "aot_core.tracking.smoke", self.uri], stdin=PIPE, stdout=PIPE, text=True
        )
        assert process.stdin is not None and process.stdout is not None
        timer = threading.Timer(self.seconds, process.kill)
        timer.start()
        try:
            process.stdin.write(address + "\n")
            process.stdin.flush()
            line = process.stdout.readline()
        except BrokenPipeError:
            line = ""
        finally:
            timer.cancel()
        if not line:
            self._process = None
            code = process.wait()
            raise SmokeError(
                f"{address}: its process ended (code {code}) before it answered within {self.seconds:g} s; "
                "look at its messages above"
            )
        return read_answer(address, line)


def read_answer(address: str, line: str) -> str:
    """The answer in a line of JSON. Raises SmokeError where it reports an error, or is something else."""
    try:
        said = json.loads(line)
    except ValueError:
        said = None
    if not isinstance(said, dict) or not {"answer", "error"} & set(said):
        raise SmokeError(f"{address}: its process wrote {line.strip()[:200]!r} where an answer was expected")
    if "error" in said:
        raise SmokeError(f"{address}: {said['error']}")
    return said["answer"]


def ask(address: str) -> str:
    """Load a registered model and ask it its input example; the first completion. Raises SmokeError."""
    import mlflow

    model = mlflow.pyfunc.load_model(address)
    example = model.input_example
    if example is None:
        raise SmokeError("it has no input example to be asked; register it again")
    table: Any = model.predict(example)
    columns = list(table.columns)
    missing = [name for name in ("letter", "answer", "completion") if name not in columns]
    if missing:
        raise SmokeError(f"its answer lacks the columns {', '.join(missing)}")
    completion = str(table["completion"][0])
    if not completion.strip():
        raise SmokeError("it answers with nothing")
    return completion


def main() -> None:
    os.environ["MLFLOW_TRACKING_URI"] = sys.argv[1]
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    # What the model's libraries print must not be taken for answers.
    answers, sys.stdout = sys.stdout, sys.stderr
    logging.basicConfig(level=logging.WARNING)
    for line in sys.argv[2:] or sys.stdin:
        try:
            said = {"answer": ask(line.strip())}
        except Exception as error:  # whatever a model raises is the finding, and is handed on as such
            said = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(said), file=answers, flush=True)


if __name__ == "__main__":
    main()
