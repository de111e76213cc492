"""From what a stage's process left behind (exit code, `result.json`) to a result or the error of the right kind."""

from aot_core.contracts.errors import StageBadInputError, StageCrashedError, StageOutOfMemoryError
from aot_core.contracts.spec import StageResult

_ERRORS = {"bad_input": StageBadInputError, "out_of_memory": StageOutOfMemoryError, "crash": StageCrashedError}


def result_or_error(stage: str, result: StageResult | None, code: int) -> StageResult:
    """The result of a stage that finished. Raises the StageError that it reported, or StageCrashedError where its
    process died before it could. Negative codes are signals, as in `subprocess`."""
    if result is None:
        raise StageCrashedError(f"{stage}: its process ended with {describe(code)} and said nothing; its log is above")
    if result.error:
        raise _ERRORS[result.error](result.message)
    return result


def describe(code: int) -> str:
    """-9 is what the kernel's out-of-memory killer leaves, among others."""
    return f"signal {-code}" + (" (out of memory?)" if code == -9 else "") if code < 0 else f"exit code {code}"
