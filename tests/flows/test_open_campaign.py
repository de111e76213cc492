"""How a campaign is opened and closed: one that could not begin gives its lock back, and a signal is no failure."""

from pathlib import Path

import pytest
from mlflow import MlflowClient

from aot_core.contracts.campaign import CampaignConfig
from aot_core.contracts.summary import CampaignSummary
from aot_core.home import Home
from aot_core.tracking.protocol import TrackingError
from flows.campaign import OpenCampaign

CONFIG = CampaignConfig(name="some")


def test_a_campaign_that_cannot_be_opened_gives_its_lock_back(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.create()
    database = home.mlflow_folder / "mlflow.db"
    database.write_bytes(b"garbage " * 500)
    failed = OpenCampaign(CONFIG, home)
    with pytest.raises(TrackingError):
        failed.__enter__()
    database.unlink()
    with OpenCampaign(CONFIG, home) as again:  # while the first one is still in this process's hands
        assert again.summary.status == "running"
    assert failed.key == again.key


def test_a_signal_interrupts_and_does_not_fail(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.create()
    with pytest.raises(SystemExit), OpenCampaign(CONFIG, home) as campaign:
        raise SystemExit(128 + 15)  # what SIGTERM becomes (`flows.own_server`)
    summary = CampaignSummary.model_validate_json((campaign.folder / "summary.json").read_bytes())
    assert (summary.status, summary.message) == ("failed", "interrupted; the same command continues the campaign")
    assert MlflowClient(home.mlflow_uri).get_run(summary.mlflow_run_id).info.status == "KILLED"
