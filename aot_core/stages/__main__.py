"""The entry of a stage's own process or container: `python -m aot_core.stages SPEC.json [RESULT.json]`.

`env:NAME` in place of a file takes the spec from the environment. Writes the result beside the spec unless told where.
Exit codes: 0 finished, 1 crashed, 2 bad input, 3 out of memory.
"""

import argparse
import logging
import os
import signal
import sys
from pathlib import Path
from typing import Literal

from aot_core.contracts.errors import StageBadInputError, StageCrashedError, StageError, StageOutOfMemoryError
from aot_core.contracts.spec import StageResult, StageSpec
from aot_core.engine.runner import execute
from aot_core.loopback import loopback_without_proxy
from aot_core.startup import quick_exit

_KINDS: dict[type[StageError], Literal["bad_input", "out_of_memory", "crash"]] = {
    StageBadInputError: "bad_input",
    StageOutOfMemoryError: "out_of_memory",
    StageCrashedError: "crash",
}


_MESSAGE_BYTES = 3000
"""Kubernetes keeps 4096 of a termination message."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m aot_core.stages", description=__doc__)
    parser.add_argument("spec")
    parser.add_argument("result", type=Path, nargs="?")
    parser.add_argument(
        "--brief", action="store_true", help="Write into RESULT as it stands, and without the record: for Kubernetes."
    )
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s")
    quick_exit()
    os.environ.update(loopback_without_proxy(os.environ))  # an engine that a stage starts is asked directly
    target: Path = arguments.result or Path(arguments.spec).with_name("result.json")
    try:
        result = execute(StageSpec.model_validate_json(_read(arguments.spec)))
        code = 0
    except StageError as error:
        logging.exception("the stage did not finish")
        result, code = StageResult(error=_KINDS.get(type(error), "crash"), message=str(error)), error.exit_code
    except ValueError as error:
        logging.exception("the spec cannot be run")
        result, code = StageResult(error="bad_input", message=str(error)), StageBadInputError.exit_code
    except KeyboardInterrupt:  # by the terminal, which tells the caller too
        return 128 + signal.SIGINT
    if arguments.brief:
        brief = result.model_copy(update={"record": None, "message": result.message[:_MESSAGE_BYTES]})
        target.write_text(brief.model_dump_json(exclude_defaults=True))
        return code
    partial = target.with_name(target.name + ".partial")
    partial.write_text(result.model_dump_json(indent=1))
    partial.replace(target)
    return code


def _read(spec: str) -> bytes:
    kind, separator, name = spec.partition(":")
    if kind == "env" and separator:
        return os.environ[name].encode()
    return Path(spec).read_bytes()


if __name__ == "__main__":
    sys.exit(main())
