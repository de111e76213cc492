"""Does everything exist that a campaign names? Checked before a flow starts, and all problems are reported at once."""

import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence

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


def demand_functions(campaign: CampaignConfig) -> None:
    """Raises ConfigError with a line for every field that names a reward which cannot be imported.

    Asked of a process of its own, as a stage would import it: the functions of other people import torch, and more. In
    a container it is the image that has them or not, so nothing is asked there.
    """
    if campaign.run.launcher not in ("inprocess", "subprocess"):
        return
    wrong = [
        told
        for field, names in _rewards(campaign).items()
        if (own := [name for name in names if ":" in name]) and (told := _import_error(field, own))
    ]
    if wrong:
        raise ConfigError("\n".join(wrong))


def _rewards(campaign: CampaignConfig) -> Mapping[str, Sequence[str]]:
    return {
        "defender_round.rewards": [term.name for term in campaign.defender_round.rewards],
        "attacker_round.reward.terms": [term.name for term in campaign.attacker_round.reward.terms],
    }


_IMPORT = """
import sys
from aot_core.contracts.functions import import_function
for name in sys.argv[2:]:
    try:
        import_function(name, sys.argv[1])
    except Exception as error:
        named = "" if isinstance(error, ValueError) and name in str(error) else f"{sys.argv[1]}: {name!r}: "
        print(f"{named}{error}", file=sys.stderr)
        sys.exit(1)
"""


def _import_error(field: str, names: Sequence[str]) -> str:
    """What the first of these functions that cannot be imported has to say; "" where all can."""
    done = subprocess.run([sys.executable, "-c", _IMPORT, field, *names], capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return ""
    said = (done.stderr.strip().splitlines() or [f"{field}: {', '.join(names)}: the import ended the process"])[-1]
    return f"{said}; install its module, or put its folder on PYTHONPATH"


def _missing(campaign: CampaignConfig) -> Iterator[str]:
    for field in ("source_folder", "benchmark_folder"):
        folder = getattr(campaign, field)
        if folder is not None and not _is(folder, "is_dir"):
            yield f"{field}: {folder!r} is not a folder; give the one that holds your data"
    if campaign.run.accelerate is not None and not _is(campaign.run.accelerate, "is_file"):
        yield f"run.accelerate: {campaign.run.accelerate!r} is not a file; name one, as in configs/accelerate"
    for reference in sorted(references_in(campaign.model_dump(mode="json"))):
        try:
            if block_of(reference) is None:  # the flow reads blocks
                demand_revealed(reference)
        except SecretError as error:
            yield str(error)
    for field, names in _rewards(campaign).items():
        try:
            demand_allowed(names, field)
        except ValueError as error:
            yield str(error)


def _is(path: str, what: str) -> bool:
    try:
        return getattr(local_path(path), what)()
    except OSError:
        return False
