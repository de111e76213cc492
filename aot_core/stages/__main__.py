"""The entry of a stage's own process or container: `python -m aot_core.stages SPEC.json [RESULT.json]`.

Writes the result beside the spec unless told where. Exit codes: 0 finished, 1 crashed, 2 bad input, 3 out of memory.
"""

import argparse
import logging
import sys
from pathlib import Path
from typing import Literal

from aot_core.contracts.errors import StageBadInputError, StageCrashedError, StageError, StageOutOfMemoryError
from aot_core.contracts.spec import StageResult, StageSpec
from aot_core.stages.runner import execute

_KINDS: dict[type[StageError], Literal["bad_input", "out_of_memory", "crash"]] = {
    StageBadInputError: "bad_input",
    StageOutOfMemoryError: "out_of_memory",
    StageCrashedError: "crash",
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m aot_core.stages", description=__doc__)
    parser.add_argument("spec", type=Path)
    parser.add_argument("result", type=Path, nargs="?")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s")
    target: Path = arguments.result or arguments.spec.with_name("result.json")
    try:
        result = execute(StageSpec.model_validate_json(arguments.spec.read_bytes()))
        code = 0
    except StageError as error:
        logging.exception("the stage did not finish")
        result, code = StageResult(error=_KINDS.get(type(error), "crash"), message=str(error)), error.exit_code
    except ValueError as error:
        logging.exception("the spec cannot be run")
        result, code = StageResult(error="bad_input", message=str(error)), StageBadInputError.exit_code
    partial = target.with_name(target.name + ".partial")
    partial.write_text(result.model_dump_json(indent=1))
    partial.replace(target)
    return code


if __name__ == "__main__":
    sys.exit(main())
