"""How a stage can fail, told apart so that a flow knows whether trying again can help."""


class ToldError(Exception):
    """An error whose message is a sentence for people: it names what is wrong and the fix, and needs no traceback."""

    exit_code = 2


class StageError(ToldError):
    """A stage did not finish. The message says which stage, why, and what to do."""

    exit_code = 1


class StageBadInputError(StageError, ValueError):
    """The config, an input or the data is wrong; trying again gives the same error."""

    exit_code = 2


class StageNoRoomError(StageBadInputError):
    """A disk is full or read-only; trying again helps once somebody has made room."""


class StageOutOfMemoryError(StageError):
    """The device or the host ran out of memory; a smaller batch helps, trying again does not."""

    exit_code = 3


class StageCrashedError(StageError):
    """The process died or raised something unforeseen; trying again may help."""

    exit_code = 1


class StageTimeoutError(StageError):
    """The stage ran longer than its campaign allows, and was ended; trying again takes as long."""

    exit_code = 4


class StageCancelledError(StageError):
    """Somebody cancelled the run; the stage was ended with it."""

    exit_code = 5


class LauncherError(StageBadInputError):
    """The launcher cannot work here: no docker, no image, no GPU. Said before anything is started."""


class NonFiniteLossError(ValueError):
    """A training loss became NaN or infinite. Raised before any weight is written."""


class CheckpointError(ValueError):
    """A folder that holds no Attacker or Defender where one is wanted, or one that cannot be trained as the config
    says."""
