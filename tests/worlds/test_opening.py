"""Config and sample tell the same world."""

from collections.abc import Callable
from pathlib import Path

import pytest

from aot_core.contracts.prepare_data import PrepareDataConfig
from aot_core.worlds.opening import world_from, world_of
from tests.data.conftest import Build

SIZES = {"warm_start": 4, "train": 4, "evaluate": 2}


@pytest.mark.parametrize("source", ["procedural", "coco"])
def test_every_sample_is_of_the_world_that_its_source_gives(
    source: str, coco: Callable[..., Path], build: Build, tmp_path: Path
) -> None:
    config = PrepareDataConfig.model_validate(
        {
            "source": {"type": source},
            "splits": SIZES,
            "implantation": {"evaluated": ["semantic"]},
            "effectiveness": {"enabled": False},
        }
    )
    samples, _ = build(config, tmp_path / "data", coco(6) if source == "coco" else None)
    assert len(samples) > sum(SIZES.values())
    world = world_from(config.source.type)
    assert world.photographs == (source == "coco")
    assert {type(world_of(sample)) for sample in samples} == {type(world)}
