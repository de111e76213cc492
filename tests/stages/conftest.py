"""What the stages' tests have in common: a store, data sets in it, the shipped editor as an Attacker's artifact."""

import shutil
from pathlib import Path

import pytest

from aot_core.base_models.names import SHIPPED
from aot_core.contracts.artifact import ArtifactRef, ExternalRef
from aot_core.contracts.prepare_data import EffectivenessSettings, PrepareDataConfig, SplitSizes
from aot_core.data.build import BuildJob, build_dataset
from aot_core.engine.context import StageContext
from aot_core.store import LocalStore

ATTACKER, DEFENDER = ExternalRef(name="aot-tiny-edit"), ExternalRef(name="aot-tiny-vl")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> LocalStore:
    return LocalStore(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def attacker(store: LocalStore, tmp_path_factory: pytest.TempPathFactory) -> ArtifactRef:
    """The shipped editor as a round's artifact."""
    folder = tmp_path_factory.mktemp("attacker")
    shutil.copytree(SHIPPED / ATTACKER.name, folder / "model")
    return store.put("attacker_round", "2" * 64, folder)


def put_data_set(store: LocalStore, factory: pytest.TempPathFactory, **splits: int) -> ArtifactRef:
    """A procedural data set of these sizes, unfiltered."""
    config = PrepareDataConfig(splits=SplitSizes(**splits), effectiveness=EffectivenessSettings(enabled=False))
    folder = factory.mktemp("dataset")
    build_dataset(BuildJob(config, None, folder.with_name(f"{folder.name}-work")), folder)
    return store.put("prepare_data", "0" * 64, folder)


def context(store: LocalStore, folder: Path) -> StageContext:
    """A stage's context with folders of its own in `folder`."""
    for name in ("output", "scratch"):
        (folder / name).mkdir(parents=True)
    return StageContext(store, folder / "output", folder / "scratch")
