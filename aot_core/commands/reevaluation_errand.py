"""`aot reevaluate` in a container of the stage image: a worker's own image (`control`) has no torch.

place --JSON--> `python -m aot_core.commands.reevaluation_errand` in a container --JSON--> what differs
"""

import json
import sys

from aot_core.commands.reevaluation import Reevaluation, ReevaluationError, reevaluate
from aot_core.contracts.launch import DockerSettings
from aot_core.contracts.spec import Place
from aot_core.launch.errand import run_errand
from aot_core.store import open_store


def reevaluate_in_container(
    uri: str, model: str, version: str, place: Place, settings: DockerSettings, seconds: float
) -> Reevaluation:
    """As `reevaluate`, at a place.

    Args:
        seconds: how long the container may take.

    Raises ReevaluationError with what the container complained of, and LauncherError where there is none.
    """
    command = ["-m", "aot_core.commands.reevaluation_errand", uri, model, version, place.model_dump_json()]
    ended = run_errand(place, settings, command, seconds, gpu=True)
    lines = ended.said.splitlines()
    if ended.code or not lines:
        raise ReevaluationError(f"{model} {version}: {ended.complained.strip() or f'exit code {ended.code}'}")
    said = json.loads(lines[-1])
    figures = {name: (then, now) for name, (then, now) in said["figures"].items()}
    return Reevaluation(said["version"], said["items"], tuple(said["different"]), figures)


def main() -> None:
    uri, model, version, told = sys.argv[1:]
    place = Place.model_validate_json(told)
    # What the libraries print must not be taken for the answer.
    answers, sys.stdout = sys.stdout, sys.stderr
    try:
        store = open_store(place.store, place.s3)
        found = reevaluate(uri, model, version, store, place.device, place.threads)
    except ValueError as error:
        sys.exit(str(error))
    print(json.dumps(found._asdict()), file=answers, flush=True)


if __name__ == "__main__":
    main()
