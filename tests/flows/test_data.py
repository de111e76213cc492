"""Shards as Prefect tasks make what one process makes."""

from pathlib import Path

from prefect.task_runners import ThreadPoolTaskRunner
from prefect.testing.utilities import prefect_test_harness

from aot_core.contracts.prepare_data import EffectivenessSettings, PrepareDataConfig, PrepareDataInputs, SplitSizes
from aot_core.contracts.spec import Place
from aot_core.data.build import BuildJob, assemble, build_dataset, make_shards
from aot_core.data.dataset import MANIFEST, file_sha256
from aot_core.stages.plan import plan_stage
from flows.data import RUNNERS, data_shards, job_of, shard_names

CONFIG = PrepareDataConfig(
    splits=SplitSizes(warm_start=12, train=4, evaluate=4),
    effectiveness=EffectivenessSettings(enabled=False),
    shard_size=4,
)


def test_mapped_shards_are_the_ones_that_one_process_makes(tmp_path: Path) -> None:
    build_dataset(BuildJob(CONFIG, None, tmp_path / "whole"), tmp_path / "whole/data")
    place = Place(store=str(tmp_path / "store"), device="cpu")
    spec = plan_stage("prepare_data", CONFIG, PrepareDataInputs(), place)
    with prefect_test_harness(server_startup_timeout=240):
        made = data_shards.with_options(task_runner=ThreadPoolTaskRunner(max_workers=2))(spec, shard_names(spec))
    assert made == 12 + 4 + 4 * 4
    summary = make_shards(job_of(spec))
    assert summary.reused == 5, "the stage finds what the tasks made"
    assemble(job_of(spec), tmp_path / "mapped", summary)
    assert file_sha256(tmp_path / "mapped" / MANIFEST) == file_sha256(tmp_path / "whole/data" / MANIFEST)


def test_runners_are_told_by_name() -> None:
    assert set(RUNNERS) == {"threads", "processes", "dask", "ray"}
    assert isinstance(RUNNERS["threads"](3), ThreadPoolTaskRunner)
