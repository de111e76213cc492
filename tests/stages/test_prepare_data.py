"""The stage: from config to guarded artifact."""

from pathlib import Path

import pytest
from PIL import Image

from aot_core.contracts.prepare_data import EffectivenessSettings, PrepareDataConfig, PrepareDataInputs, SplitSizes
from aot_core.data.dataset import read_samples, wrong_hashes
from aot_core.engine.context import StageContext
from aot_core.stages.prepare_data import run_prepare_data
from aot_core.store import open_store

CONFIG = PrepareDataConfig(
    splits=SplitSizes(warm_start=16, train=8, evaluate=4), effectiveness=EffectivenessSettings(enabled=False)
)


def context(folder: Path) -> StageContext:
    (folder / "output").mkdir()
    return StageContext(store=open_store(str(folder / "store")), output=folder / "output", scratch=folder)


def test_the_artifact_is_a_guarded_data_set_with_pictures(tmp_path: Path) -> None:
    outputs = run_prepare_data(CONFIG, PrepareDataInputs(), context(tmp_path))
    folder = tmp_path / "output"
    assert wrong_hashes(folder) == []
    assert outputs.samples == {"warm_start": 16, "train": 8, "evaluate": 16}
    assert outputs.pairs == sum(s.edited_image is not None for s in read_samples(folder)) == 28
    assert 0.85 <= outputs.least_ssim <= outputs.mean_ssim <= 1
    assert outputs.funnel["ssim/accepted"] == 20
    assert (folder / "guard/report.html").is_file()
    assert Image.open(folder / "pictures/pairs.png").width > 600


def test_the_filter_needs_a_defender(tmp_path: Path) -> None:
    config = CONFIG.model_copy(update={"effectiveness": EffectivenessSettings()})
    with pytest.raises(ValueError, match=r"effectiveness\.enabled asks for a base Defender and none was given"):
        run_prepare_data(config, PrepareDataInputs(), context(tmp_path))
    assert list((tmp_path / "output").iterdir()) == []
