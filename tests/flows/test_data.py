"""Shards as Prefect tasks make what one process makes, and MLflow leads from a run to its data and what was checked."""

import json
import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import psutil
import pytest
from mlflow import MlflowClient
from PIL import Image
from prefect.task_runners import ThreadPoolTaskRunner
from prefect.testing.utilities import prefect_test_harness

from aot_core.contracts.campaign import CampaignConfig
from aot_core.contracts.errors import StageBadInputError
from aot_core.contracts.prepare_data import EffectivenessSettings, PrepareDataConfig, PrepareDataInputs, SplitSizes
from aot_core.contracts.spec import Place
from aot_core.data.build import BuildJob, assemble, build_dataset, make_shards
from aot_core.data.dataset import MANIFEST, file_sha256
from aot_core.engine.identity import stage_spec
from aot_core.engine.runner import execute
from aot_core.home import Home
from aot_core.store.manifest import manifest_of
from flows import tasks
from flows.campaign import OpenCampaign
from flows.data import RUNNERS, data, data_shards, job_of, shard_names
from flows.own_server import _APP

ROOT = Path(__file__).parents[2]
CLEAN = {key: value for key, value in os.environ.items() if not key.startswith(("PREFECT_", "MLFLOW_TRACKING"))}
CONFIG = PrepareDataConfig(
    splits=SplitSizes(warm_start=12, train=4, evaluate=4),
    effectiveness=EffectivenessSettings(enabled=False),
    shard_size=4,
)


def test_mapped_shards_are_the_ones_that_one_process_makes(tmp_path: Path) -> None:
    build_dataset(BuildJob(CONFIG, None, tmp_path / "whole"), tmp_path / "whole/data")
    place = Place(store=str(tmp_path / "store"), device="cpu")
    spec = stage_spec("prepare_data", CONFIG, PrepareDataInputs(), place)
    with prefect_test_harness(server_startup_timeout=240):
        made = data_shards.with_options(task_runner=ThreadPoolTaskRunner(max_workers=2))(spec, shard_names(spec))
    assert made == 12 + 4 + 4 * 4
    summary = make_shards(job_of(spec))
    assert summary.reused == 5, "the stage finds what the tasks made"
    assemble(job_of(spec), tmp_path / "mapped", summary)
    assert file_sha256(tmp_path / "mapped" / MANIFEST) == file_sha256(tmp_path / "whole/data" / MANIFEST)


def test_shards_are_mapped_into_a_bucket_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The endpoint stands in the config alone: whatever opens the store without it asks AWS."""
    import boto3
    from moto.server import ThreadedMotoServer

    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    url = "http://{}:{}".format(*server.get_host_and_port())
    boto3.client("s3", endpoint_url=url, region_name="us-east-1").create_bucket(Bucket="bucket")
    run = {"store": "s3://bucket/store", "s3": {"endpoint_url": url, "patience": 2}}
    campaign = {"name": "mapped", "stop_after": "prepare_data", "run": run, "prepare_data": CONFIG.model_dump()}
    home = Home(tmp_path / "home")
    home.create()
    monkeypatch.setenv("AOT_CACHE", str(home.cache))
    with prefect_test_harness(server_startup_timeout=240):
        made = data(CampaignConfig.model_validate(campaign), str(home.root))
    server.stop()
    assert isinstance(made, str) and made.startswith("aot://prepare_data/")


@pytest.mark.timeout(1800)
def test_the_workers_of_a_run_start_no_servers_of_their_own(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "aot_core", "data", "map", "configs/smoke.toml", "--runner", "processes"]
    few = ("splits.warm_start=8", "splits.train=4", "splits.evaluate=0", "shard_size=4", "effectiveness.enabled=false")
    command += [part for setting in few for part in ("--set", f"prepare_data.{setting}")]
    servers: set[int] = set()
    with subprocess.Popen([*command, "--home", str(tmp_path / "home")], cwd=ROOT, env=CLEAN) as run:
        while run.poll() is None:
            servers |= servers_below(run.pid)
            time.sleep(0.2)
    assert run.returncode == 0 and len(servers) == 1


def servers_below(process: int) -> set[int]:
    """The Prefect servers that a process, or one that it has started, has started."""
    found: set[int] = set()
    with suppress(psutil.NoSuchProcess):
        for child in psutil.Process(process).children(recursive=True):
            with suppress(psutil.Error):
                found |= {child.pid} if _APP in child.cmdline() else set()
    return found


def test_runners_are_told_by_name() -> None:
    assert set(RUNNERS) == {"threads", "processes", "dask", "ray"}
    assert isinstance(RUNNERS["threads"](3), ThreadPoolTaskRunner)


def photographs(folder: Path) -> Path:
    """Four small photographs in COCO format, each with two things and a licence."""
    rng = np.random.default_rng(0)
    (folder / "images").mkdir(parents=True)
    instances: dict[str, Any] = {"images": [], "annotations": [], "categories": []}
    instances["licenses"] = [{"id": 1, "name": "CC0", "url": "https://example.org/cc0"}]
    for image in range(4):
        ground = Image.fromarray(rng.integers(40, 200, (6, 8, 3), dtype=np.uint8)).resize((160, 120))
        for place, (x, y) in enumerate(((20, 30), (100, 70))):
            ground.paste(Image.fromarray(rng.integers(0, 256, (5, 6, 3), dtype=np.uint8)).resize((36, 30)), (x, y))
            number = 2 * image + place
            instances["categories"].append({"id": number, "name": f"thing {number}"})
            instances["annotations"].append(
                {"id": number, "image_id": image, "category_id": number, "bbox": [x, y, 36, 30]}
            )
        ground.save(folder / f"images/{image}.png")
        about = {"width": 160, "height": 120, "license": 1} if image < 2 else {"width": 160, "height": 120}
        instances["images"].append({"id": image, "file_name": f"{image}.png", **about})
    (folder / "instances.json").write_text(json.dumps(instances))
    return folder


def campaign_of(name: str, folder: Path, **guard: int) -> CampaignConfig:
    return CampaignConfig.model_validate(
        {
            "name": name,
            "stop_after": "prepare_data",
            "source_folder": str(folder),
            "prepare_data": {
                "source": {"type": "coco"},
                "splits": {"warm_start": 8, "train": 0, "evaluate": 2},
                "implantation": {"evaluated": ["semantic", "irrelevant"]},
                "effectiveness": {"enabled": False},
                "guard": guard,
            },
        }
    )


def make_data(config: CampaignConfig, home: Home) -> tuple[str, str]:
    """The campaign's data without Prefect; the campaign's MLflow run and the data set's sha256."""
    with OpenCampaign(config, home) as campaign:
        result = execute(tasks.spec_of(campaign, "prepare_data", campaign.data_inputs()))
        assert result.record is not None
        campaign.note(result.record, 0, reused=result.reused)
        return campaign.summary.mlflow_run_id, result.record.artifact.sha256


def test_a_run_leads_to_its_data_docs_and_to_the_hashes_of_data_and_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, folder = Home(tmp_path / "home"), photographs(tmp_path / "photographs")
    home.create()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", home.mlflow_uri)
    pages = []
    # The second campaign finds the data of the first in the store.
    for name in ("first", "second"):
        run_id, sha256 = make_data(campaign_of(name, folder), home)
        run = MlflowClient(home.mlflow_uri).get_run(run_id)
        (data,) = run.inputs.dataset_inputs
        source = json.loads(data.dataset.source)
        assert source["sha256"] == sha256 and data.dataset.digest == sha256[:36]
        assert source["made_of"] == {"source": manifest_of(folder).sha256}
        address = run.data.tags["aot.data_docs"]
        assert address.removeprefix("runs:/").split("/", 1)[0] in run.data.tags["mlflow.note.content"]
        pages.append((address, Path(mlflow.artifacts.download_artifacts(address)).read_text()))
    assert pages[0][0].endswith("data_docs/index.html") and "prepared_data" in pages[0][1]
    assert pages[1][0].endswith("data_guard/report.html") and "no source stands in two splits" in pages[1][1]
    site = Path(mlflow.artifacts.download_artifacts(pages[0][0].removesuffix("/index.html")))
    (validation,) = (site / "validations").rglob("*.html")
    assert "truth_when_edited" in validation.read_text()
    (card,) = (tmp_path / "home/store/prepare_data").glob("*/files/card.json")
    licences = json.loads(card.read_text())["licences"]
    assert set(licences) == {"CC0 https://example.org/cc0", "not said"}


def test_a_failing_checkpoint_stops_the_campaign_names_rows_and_leaves_its_docs(tmp_path: Path) -> None:
    home, folder = Home(tmp_path / "home"), photographs(tmp_path / "photographs")
    home.create()
    # By so loose a measure any two photographs are near-duplicates.
    with pytest.raises(StageBadInputError, match=r"near_duplicate\), as no source .*'(warm_start|evaluate)-000000-"):
        make_data(campaign_of("alike", folder, near_duplicate_bits=150), home)
    assert not list((tmp_path / "home/store/prepare_data").glob("*/record.json"))
    client = MlflowClient(home.mlflow_uri)
    experiment = client.get_experiment_by_name("aot")
    assert experiment is not None
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    assert {run.info.status for run in runs.values()} == {"FAILED"}
    docs = runs["round-0"].data.tags["aot.data_docs"]
    assert docs in [one.path for one in client.list_artifacts(runs["round-0"].info.run_id, "data_docs")]
