"""Shards as Prefect tasks: the data set's unit of work, mapped over threads here, over a Dask or Ray cluster elsewhere.

    config --one task a shard--> shards in the work folder --stage prepare_data--> artifact

    aot data map CONFIG.toml [--set section.field=value ...] [--runner threads|processes|dask|ray]

The tasks fill the work folder of the stage `prepare_data`; the stage then finds its shards there and joins them. So a
cluster only has to share a disk for the home, and the result is the one that a single process makes. Threads take turns
(the mathematics is one process's); processes do not. Dask and Ray come with the extras `aot[dask]` and `aot[ray]`.
"""

import argparse
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefect import State, flow, task, unmapped
from prefect.client.orchestration import get_client
from prefect.futures import wait
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.task_runners import ProcessPoolTaskRunner, TaskRunner, ThreadPoolTaskRunner

from aot_core.commands.handover import take
from aot_core.contracts.campaign import CampaignConfig
from aot_core.contracts.prepare_data import PrepareDataConfig, PrepareDataInputs
from aot_core.contracts.spec import StageSpec
from aot_core.home import Home
from aot_core.store import open_store
from flows import tasks
from flows.campaign import OpenCampaign
from flows.own_server import keep_own_server
from flows.secrets import lend_blocks
from flows.sentences import failed, run_flow, value_of

if TYPE_CHECKING:
    from aot_core.data.build import BuildJob


def _dask(workers: int) -> TaskRunner[Any]:
    from prefect_dask import DaskTaskRunner  # pyright: ignore[reportMissingImports] - an extra

    return DaskTaskRunner(cluster_kwargs={"n_workers": workers, "threads_per_worker": 1})


def _ray(workers: int) -> TaskRunner[Any]:
    from prefect_ray import RayTaskRunner  # pyright: ignore[reportMissingImports] - an extra

    # A cluster has the processors that it has: Ray refuses to be told.
    local = {} if os.environ.get("RAY_ADDRESS") else {"num_cpus": workers}
    return RayTaskRunner(init_kwargs=local)


RUNNERS: dict[str, Callable[[int], TaskRunner[Any]]] = {
    "threads": lambda workers: ThreadPoolTaskRunner(max_workers=workers),
    "processes": lambda workers: ProcessPoolTaskRunner(max_workers=workers),
    "dask": _dask,
    "ray": _ray,
}


@task(task_run_name="{shard_name}", retries=1, retry_delay_seconds=5)
def make_shard(spec: StageSpec, shard_name: str) -> int:
    """Make one shard of a stage's data set, unless its work folder holds it; returns its samples."""
    from aot_core.data.build import make_one

    return make_one(job_of(spec), shard_name).samples


@flow(name="data-shards", validate_parameters=False)
def data_shards(spec: StageSpec, shard_names: list[str]) -> int:
    """Make these shards, each in a task; returns their samples."""
    futures = make_shard.map(unmapped(spec), shard_names)
    wait(futures)
    return sum(future.result() for future in futures)


@flow(name="data", flow_run_name="{config.name}", validate_parameters=False)
def data(config: CampaignConfig, home: str, runner: str = "threads", workers: int = 2) -> str | State[Any]:
    """A campaign's data set by mapped shards; returns its artifact's address."""
    try:
        return _map_shards(config, home, runner, workers)
    except Exception as error:
        return failed(error, home)


def _map_shards(config: CampaignConfig, home: str, runner: str, workers: int) -> str:
    lend_blocks(config)
    with OpenCampaign(config, Home(home)) as campaign:
        inputs = campaign.data_inputs()
        spec = tasks.spec_of(campaign, "prepare_data", inputs)
        if campaign.store.find("prepare_data", spec.key) is None:
            with one_server():
                data_shards.with_options(task_runner=RUNNERS[runner](workers))(spec, shard_names(spec))
        return tasks.prepare_data(campaign, inputs).artifact.uri


@contextmanager
def one_server() -> Iterator[None]:
    """Let workers that start in the block report to the server that this run reports to. Where that is one that Prefect
    has started for the run, its address stands in no setting, and each worker would start another on its database."""
    with get_client(sync_client=True) as client:
        address = str(client.api_url).rstrip("/")
    with temporary_settings({PREFECT_API_URL: address}):
        yield


def shard_names(spec: StageSpec) -> list[str]:
    """The shards that the stage's data set is made of."""
    from aot_core.data.build import plan_build

    return [shard.name for shard in plan_build(job_of(spec)).shards]


def job_of(spec: StageSpec) -> "BuildJob":
    """What the stage of this spec would do, in the folder where it leaves its progress."""
    from aot_core.engine.context import StageContext
    from aot_core.engine.runner import progress_folder, resolve_device
    from aot_core.stages.prepare_data import build_job

    store = open_store(spec.place.store, spec.place.s3)
    work = progress_folder(store, spec)
    device = resolve_device(spec.place.device)
    context = StageContext(store, work, work, device, progress=work)
    config = PrepareDataConfig.model_validate(spec.config)
    inputs = PrepareDataInputs.model_validate(spec.inputs)
    previous = store.fetch(inputs.previous) if inputs.previous else None
    return replace(build_job(config, inputs, context), previous=previous)


def main() -> int:
    """`python -m flows.data HOME CONFIG_FILE ...`; the environment is already set (see `aot data map`)."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("home", type=Path)
    parser.add_argument("config", type=Path, help="What `aot data map` has resolved; removed once it is read.")
    parser.add_argument("--runner", choices=sorted(RUNNERS), default="threads")
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    keep_own_server()
    return run_flow(arguments.home, lambda: print(_data(arguments)))


def _data(arguments: argparse.Namespace) -> str:
    state = data(take(arguments.config), str(arguments.home), arguments.runner, arguments.workers, return_state=True)
    return value_of(state)


if __name__ == "__main__":
    sys.exit(main())
