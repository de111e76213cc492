"""Which restart of a campaign it is: an unfinished one, or a new one."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from aot_core.commands.status import read_summaries
from aot_core.contracts.base import decisive
from aot_core.contracts.campaign import CampaignConfig
from aot_core.contracts.restart import Restart
from aot_core.home import Home
from flows.campaign import OpenCampaign

_ASIDE = {"run", "promotion", "restart"}
"""What of a config does not tell one campaign from another, and which restart of it this is."""


def dated(config: CampaignConfig, home: Home) -> CampaignConfig:
    """The config with the moment of its restart: that of the last one from the same stage where it did not end, so that
    a restart that was killed goes on; else now. A config without a restart stays as it is."""
    asked = config.restart
    if asked is None or asked.asked_at:
        return config
    began = [
        known.asked_at
        for summary in read_summaries(home)[0]
        if summary.status != "finished" and (known := _restart_of(summary.config, config)) is not None
    ]
    moment = max(began, default=datetime.now(UTC).isoformat(timespec="seconds"))
    return config.model_copy(update={"restart": asked.model_copy(update={"asked_at": moment})})


def tell_restart(campaign: OpenCampaign) -> None:
    """Print from where the campaign is rerun."""
    restart = campaign.config.restart
    if restart is None:
        return
    where = f"round {restart.round}" if restart.round else "start"
    campaign.say(f"rerunning from [bold]{restart.stage}[/] ({where}) on; earlier results are kept. {restart.asked_at}")


def _restart_of(known: Mapping[str, Any], config: CampaignConfig) -> Restart | None:
    """The restart of a campaign, where it is one of this config from the same stage."""
    try:
        other = CampaignConfig.model_validate(known)
    except ValueError:
        return None  # of another version of the contracts
    if other.restart is None or config.restart is None or _told(other) != _told(config):
        return None
    here, there = config.restart, other.restart
    return there if (here.stage, here.round) == (there.stage, there.round) else None


def _told(config: CampaignConfig) -> dict[str, Any]:
    return {name: value for name, value in decisive(config).items() if name not in _ASIDE}
