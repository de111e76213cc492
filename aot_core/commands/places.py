"""Is everything there that a campaign names? Asked before a flow is started: the answer comes at once, and whole."""

from collections.abc import Iterator

from aot_core.base_models.names import UnknownModelError, model_folder
from aot_core.contracts.campaign import CampaignConfig
from aot_core.contracts.code import demand_allowed
from aot_core.contracts.loading import ConfigError
from aot_core.contracts.paths import local_path
from aot_core.contracts.secrets import SecretError, block_of, demand_revealed, references_in


def models_from_hub(campaign: CampaignConfig) -> list[str]:
    """The names that a hub is asked for. Raises ConfigError for a model that cannot be loaded from anywhere."""
    found: list[str] = []
    for field, name in campaign.models_by_field.items():
        try:
            if model_folder(name) is None:
                found.append(name)
        except UnknownModelError as error:
            raise ConfigError(f"{field}: {error}") from error
    return found


def demand_places(campaign: CampaignConfig) -> None:
    """Raises ConfigError with a line for every folder, file, variable or function that is missing or refused."""
    wrong = list(_missing(campaign))
    if wrong:
        raise ConfigError("\n".join(wrong))


def _missing(campaign: CampaignConfig) -> Iterator[str]:
    for field in ("source_folder", "benchmark_folder"):
        folder = getattr(campaign, field)
        if folder is not None and not _is(folder, "is_dir"):
            yield f"{field}: {folder!r} is not a folder; name the one that holds your data"
    if campaign.run.accelerate is not None and not _is(campaign.run.accelerate, "is_file"):
        yield f"run.accelerate: {campaign.run.accelerate!r} is not a file; name one, as in configs/accelerate"
    for reference in sorted(references_in(campaign.model_dump(mode="json"))):
        try:
            if block_of(reference) is None:  # the flow reads blocks
                demand_revealed(reference)
        except SecretError as error:
            yield str(error)
    named = {
        "defender_round.rewards": campaign.defender_round.rewards,
        "attacker_round.reward.terms": campaign.attacker_round.reward.terms,
    }
    for field, terms in named.items():
        try:
            demand_allowed([term.name for term in terms], field)
        except ValueError as error:
            yield str(error)


def _is(path: str, what: str) -> bool:
    try:
        return getattr(local_path(path), what)()
    except OSError:
        return False
