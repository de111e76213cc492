"""What `aot run` is asked for beside its config: a restart, an owner, a note, tags."""

import json
from collections.abc import Mapping, Sequence

from aot_core.contracts.campaign import CampaignConfig
from aot_core.contracts.restart import parse_restart


def toml_value(value: str | Mapping[str, str]) -> str:
    """A text, or a table of texts, as `--set` reads it."""
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    return "{" + ", ".join(f"{toml_value(key)} = {toml_value(text)}" for key, text in value.items()) + "}"


def pairs(tags: Sequence[str]) -> dict[str, str]:
    """`NAME=VALUE` tags. Raises ValueError for one that is none."""
    told: dict[str, str] = {}
    for tag in tags:
        name, equals, value = tag.partition("=")
        if not equals or not name:
            raise ValueError(f"--tag {tag!r}: write NAME=VALUE")
        told[name] = value
    return told


def with_restart(campaign: CampaignConfig, asked: str | None, edition: str | None) -> CampaignConfig:
    """The campaign, to be rerun from a stage on. Raises ValueError for a stage that it does not have."""
    if asked is None:
        return campaign
    if campaign.series is not None and (edition is None or edition == "next"):
        raise ValueError("--from: the config has [series]; name the edition to rerun with --edition N")
    return campaign.model_copy(update={"restart": parse_restart(asked, campaign.rounds)})
