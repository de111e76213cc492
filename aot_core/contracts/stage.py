"""What a stage declares of itself beside its contract, so that nothing else keeps a table of stages.

Every `contracts/<stage>.py` has a `STAGE`. Who tracks, promotes and reports asks `engine.identity.declaration(stage)`.
"""

from typing import Literal

from aot_core.contracts.base import Frozen


class StageDeclaration(Frozen):
    """Properties of a stage that tracking, promotion and reports depend on."""

    checkpoint: Literal["", "attacker", "defender"] = ""
    """Whose weights the artifact contains; MLflow logs it as that player's checkpoint."""
    data_set: bool = False
    """Whether its artifact is a data set, which MLflow logs as an input."""
    promoted_with: bool = False
    """Whether promotion of a Defender requires this stage's record in its campaign."""
    same_in_all_rounds: bool = False
    """Whether its seed is the campaign's own in every round, so that rounds differ only by the players."""
