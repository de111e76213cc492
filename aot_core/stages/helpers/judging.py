"""The judge of edited photographs, loaded for whichever stage checks edits; to those who check it is an `Answerer`."""

from aot_core.contracts.artifact import ExternalRef
from aot_core.contracts.attack import ValiditySettings
from aot_core.contracts.protocols import Answerer
from aot_core.engine.context import StageContext


def load_judge(settings: ValiditySettings, given: ExternalRef | None, context: StageContext) -> Answerer | None:
    """The model that the settings name; None where they name none.

    Args:
        given: the stage's pinned input: its contents, not the name in the config, identify the stage.

    Raises ValueError where the settings name a judge and the input is missing.
    """
    if settings.judge is None:
        return None
    if given is None:
        raise ValueError(
            f"validity.judge asks for {settings.judge!r} and no judge was given; give one, or leave it out"
        )
    return open_judge(context.model(given), settings, context.device)


def open_judge(name: str, settings: ValiditySettings, device: str) -> Answerer:
    """Load any image-text-to-text model (hub name or folder) as a judge. Raises UnknownModelError."""
    from aot_core.defender.answering import Defender

    return Defender.load(name, device=device, dtype=settings.judge_dtype, max_new_tokens=settings.judge_tokens)
