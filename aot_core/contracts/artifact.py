"""References to immutable folders in the store, and the record that a finished stage leaves behind."""

from collections.abc import Mapping
from typing import Any, Literal, cast

from pydantic import Field

from aot_core.contracts.base import Frozen, sha256_of

StageName = Literal[
    "prepare_data",
    "warm_start_attacker",
    "warm_start_defender",
    "attacker_round",
    "curate",
    "bank",
    "compare_data",
    "defender_round",
    "evaluate",
]

RecordName = Literal[StageName, "promotion", "edition"]
"""Everything that the store keeps records of: the stages, the ledger's entries, and a series' plans and ends."""


class ArtifactRef(Frozen):
    """An artifact, identified by its address and its contents."""

    uri: str = Field(pattern=r"^aot://[a-z_]+/[0-9a-f]{64}$")
    """`aot://STAGE/KEY`, resolved by the campaign's store."""
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    """sha256 of the artifact's manifest, which lists the sha256 of every file."""


class ExternalRef(Frozen):
    """An input from outside the store: a base model (hub name, folder, or a model that this project ships) or a source
    data folder."""

    name: str
    sha256: str = ""
    """sha256 of the folder's files, so that different contents give a different identity. Empty for a hub name."""


class StageIdentity(Frozen):
    """Everything that determines a stage's result, and nothing else: not the place, the device or the launcher."""

    stage: RecordName
    version: int
    config: dict[str, Any]
    inputs: dict[str, Any]
    """Input name to sha256, or to a list of them (a hub model: its name). The location is left out."""

    @property
    def key(self) -> str:
        return sha256_of(self)


class StageRecord(Frozen):
    """`record.json`: written last, so that its existence means that the stage is finished."""

    stage: RecordName
    key: str
    identity: StageIdentity
    artifact: ArtifactRef
    outputs: dict[str, Any]
    """The stage's return value: numbers and short strings."""
    seconds: float
    device: str
    git_commit: str
    image_digest: str
    packages: dict[str, str]
    started_at: str
    """UTC, ISO 8601."""

    @property
    def metrics(self) -> dict[str, float]:
        """The numbers among the outputs, nested ones as `outer/inner`."""
        return flat_numbers(self.outputs)


def flat_numbers(values: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """The numbers in a nested mapping, keyed by their path: `{"a": {"b": 1}}` gives `{"a/b": 1.0}`."""
    numbers: dict[str, float] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            numbers |= flat_numbers(cast("Mapping[str, Any]", value), f"{prefix}{key}/")
        elif isinstance(value, int | float):
            numbers[prefix + key] = float(value)
    return numbers
