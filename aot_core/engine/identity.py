"""From a stage's config and inputs to its spec: what identifies it, and where it will run. Imports without torch."""

from collections.abc import Mapping
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from aot_core.base_models.names import UnknownModelError, model_folder
from aot_core.contracts.artifact import ArtifactRef, ExternalRef, RecordName, StageIdentity, StageName
from aot_core.contracts.base import Frozen, decisive
from aot_core.contracts.paths import local_path
from aot_core.contracts.spec import Place, StageSpec
from aot_core.contracts.stage import StageDeclaration
from aot_core.store.manifest import manifest_of

REMADE = "remade"
"""The input that a restart adds to an identity (`contracts.restart`)."""


def contract(stage: RecordName) -> ModuleType:
    """The module of a stage's contract: one name in four places."""
    return import_module(f"aot_core.contracts.{stage}")


def contract_class(stage: StageName, role: str) -> type[Frozen]:
    """A stage's Config, Inputs or Outputs class: `contract_class("prepare_data", "Config")`."""
    camel = "".join(word.capitalize() for word in stage.split("_"))
    return getattr(contract(stage), camel + role)


def declaration(stage: RecordName) -> StageDeclaration:
    """What a stage's contract says of it."""
    return contract(stage).STAGE


def stage_spec(stage: StageName, config: Frozen, inputs: Frozen, place: Place, remade: str = "") -> StageSpec:
    """The spec of one stage. Its key depends on the config, the inputs' contents and the stage's version alone.

    Args:
        remade: for a restart, the time it was requested: the stage then gets another key and runs again.
    """
    contents = {name: _content(getattr(inputs, name)) for name in _decisive_inputs(inputs)}
    identity = StageIdentity(
        stage=stage,
        version=contract(stage).VERSION,
        config=decisive(config),
        inputs=contents | ({REMADE: remade} if remade else {}),
    )
    return StageSpec(
        stage=stage,
        config=config.model_dump(mode="json"),
        inputs=inputs.model_dump(mode="json"),
        identity=identity,
        place=place,
    )


def pin_model(name: str, field: str = "") -> ExternalRef:
    """A base model with the hash of its weights (a hub name: without). Raises UnknownModelError, which names the field
    where it is given."""
    try:
        folder = model_folder(name)
    except UnknownModelError as error:
        raise UnknownModelError(f"{field}: {error}" if field else str(error)) from error
    return ExternalRef(name=name, sha256=_folder_sha256(folder) if folder else "")


def check_model(name: str, sha256: str) -> None:
    """Raise UnknownModelError where a model's files are not those of that hash; a hub name has none to compare."""
    held = pin_model(name).sha256
    if sha256 and held and held != sha256:
        raise UnknownModelError(
            f"model {name!r} differs (sha256 {held[:12]}) from the one that training started from "
            f"({sha256[:12]}); restore that one, or train again"
        )


def pin_source(folder: str | None, field: str = "source_folder") -> ExternalRef | None:
    """A folder of outside data with the hash of its contents. Raises ValueError where it does not exist."""
    if folder is None:
        return None
    path = local_path(folder)
    if not path.is_dir():
        raise ValueError(f"{field}: {folder!r} is not a folder; name the one that holds your data")
    return ExternalRef(name=str(path.resolve()), sha256=_folder_sha256(path.resolve()))


@lru_cache(maxsize=32)
def _folder_sha256(folder: Path) -> str:
    return manifest_of(folder).sha256


def _decisive_inputs(inputs: Frozen) -> list[str]:
    """The inputs that are hashed: all but `LATER` ones at their default (`contracts.base`)."""
    return list(decisive(inputs))


def _content(value: Any) -> Any:
    """What of an input decides the result: contents, never places."""
    if isinstance(value, ArtifactRef):
        return value.sha256
    if isinstance(value, ExternalRef):
        return value.sha256 or value.name
    if isinstance(value, tuple | list):
        return [_content(item) for item in value]
    if isinstance(value, Mapping):
        return {key: _content(item) for key, item in value.items()}
    return value
