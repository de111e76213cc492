"""A restart: a campaign again from a chosen stage on. What it makes stands beside what there was; nothing is replaced.

A stage is found by its key, so what is to be made anew needs another one: the moment when the restart was asked for
goes into it, as an input. That moment is kept for as long as the restart has not come to its end.
"""

from typing import get_args

from pydantic import Field

from aot_core.contracts.artifact import RecordName, StageName
from aot_core.contracts.base import Frozen

_TRAINED: tuple[StageName, ...] = (
    "prepare_data",
    "warm_start_attacker",
    "warm_start_defender",
    "attacker_round",
    "curate",
    "defender_round",
)
"""Each builds upon those before it, and round k + 1 upon round k. The other stages look, and nothing builds on them."""
_OF_A_ROUND = ("attacker_round", "curate", "defender_round")


class Restart(Frozen):
    """The stage from which a campaign is recomputed."""

    stage: StageName
    round: int = Field(default=0, ge=0, le=999)
    """The round of that stage. 0: data, warm starts and the first evaluation."""
    asked_at: str = Field(default="", max_length=40)
    """UTC, ISO 8601; part of the keys of the recomputed stages. Filled in at the start."""

    def covers(self, stage: RecordName, round_index: int) -> bool:
        """Whether a stage of a round is the chosen one, or follows it."""
        if self.stage not in _TRAINED:
            return stage == self.stage and round_index >= self.round
        first = self.round, _TRAINED.index(self.stage)
        # Who looks comes after all that is trained in its round.
        return (round_index, _TRAINED.index(stage) if stage in _TRAINED else len(_TRAINED)) >= first


def parse_restart(asked: str, rounds: int) -> Restart:
    """`curate`, or `curate:2` for round 2; without a round the first in which there is such a stage.

    Raises ValueError for a stage or round that the campaign does not have.
    """
    stage, separator, number = asked.partition(":")
    if stage not in get_args(StageName):
        raise ValueError(f"--from {asked!r}: no such stage; give one of {', '.join(get_args(StageName))}")
    least = 1 if stage in _OF_A_ROUND else 0
    most = rounds if stage in (*_OF_A_ROUND, "evaluate", "bank") else 0
    if separator and not number.isdecimal():
        raise ValueError(f"--from {asked!r}: {number!r} is not a round; give STAGE or STAGE:ROUND")
    chosen = int(number) if separator else least
    if not least <= chosen <= most:
        has = f"rounds {least} to {most}" if most > least else f"round {most}" if most >= least else "no round"
        raise ValueError(f"--from {asked!r}: {stage} runs in {has} of this campaign")
    return Restart.model_validate({"stage": stage, "round": chosen})
