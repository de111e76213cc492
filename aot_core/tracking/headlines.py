"""The dozen figures of a campaign that people compare, by names that begin MLflow's metrics tab."""

from collections.abc import Mapping
from typing import Any

from aot_core.contracts.artifact import StageRecord
from aot_core.contracts.evaluate import REGRESSION_SUITE, attacker_condition

_CONDITIONS = ("clean", "semantic", "irrelevant", "unseen", REGRESSION_SUITE)
_OF_STAGE: Mapping[str, Mapping[str, str]] = {
    "attacker_round": {"success_after": "attacker_success", "valid_after": "attacker_valid"},
    "curate": {"kept": "lessons_kept", "success": "attacker_success_on_lessons"},
    "defender_round": {"last_reward": "defender_reward"},
    "prepare_data": {"pairs": "pairs"},
}
"""Stage to its figures, and their names here."""


def headlines(record: StageRecord, round_index: int, label: str = "") -> dict[str, float]:
    """`headline/NAME` to figure (`_headlines`): MLflow's metrics tab shows a prefix as a section of its own."""
    return {f"headline/{name}": value for name, value in _headlines(record, round_index, label).items()}


def _headlines(record: StageRecord, round_index: int, label: str) -> dict[str, float]:
    """A finished stage's headlines, shares 0..1; everything else it measured stands in `stages.json`.

    Args:
        label: what the stage's figures go by instead of its name: an evaluation of cross-play has no headline but how
            the Defender fares against the Attacker that was trained against it.
    """
    outputs: Mapping[str, Any] = record.outputs
    if record.stage != "evaluate":
        named = _OF_STAGE.get(record.stage, {})
        return {
            name: float(outputs[field]) for field, name in named.items() if isinstance(outputs.get(field), int | float)
        }
    strict: Mapping[str, float] = outputs["strict"]
    if label:
        newest = attacker_condition(round_index + 1)
        return {"next_attacker": strict[newest]} if label == "crossplay" and newest in strict else {}
    found = {"worst": float(outputs["worst"])}
    if outputs.get("every_attack") is not None:
        found["every_attack"] = float(outputs["every_attack"])
    found |= {name: strict[name] for name in _CONDITIONS if name in strict}
    own = attacker_condition(round_index)
    return found | ({"own_attacker": strict[own]} if own in strict else {})
