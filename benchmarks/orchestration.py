"""What orchestration costs: a campaign with and without Prefect, and a stage under each launcher.

    python benchmarks/orchestration.py campaign [CONFIG] [--repeats 3]
    python benchmarks/orchestration.py stage [--repeats 5] [--launchers inprocess subprocess docker]

`campaign` runs CONFIG (configs/smoke.toml) by turns as plain function calls (the same code with Prefect's task taken
out of it) and in process under Prefect, each in a new process and a new home, with one Prefect server that is started
beforehand, and prints the ratios of the pairs: by the clock, and by the CPU seconds of process and children, which a
busy machine disturbs less. `stage` runs the same small `prepare_data` under each launcher, by turns, in a new store
every time, and prints the seconds from the call to the result, less those that the stage itself worked.
"""

import argparse
import os
import resource
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple, get_args
from unittest.mock import patch

from aot_core.contracts.campaign import RunSettings
from aot_core.contracts.loading import load_campaign
from aot_core.contracts.prepare_data import EffectivenessSettings, PrepareDataConfig, PrepareDataInputs, SplitSizes
from aot_core.contracts.spec import Place, StageResult, StageSpec
from aot_core.home import Home
from aot_core.launch import open_launcher
from aot_core.stages.plan import plan_stage
from aot_core.stages.runner import execute, find

ROOT = Path(__file__).parents[1]
CONFIG = PrepareDataConfig(
    splits=SplitSizes(warm_start=24, train=8, evaluate=4), effectiveness=EffectivenessSettings(enabled=False)
)
KINDS = ("plain", "prefect")


class Cost(NamedTuple):
    """Of one campaign, in seconds."""

    clock: float
    cpu: float
    """Of its process and that process's children."""


class PlainCall:
    """Stands where `flows.tasks.run_stage` stands, and only calls the stage."""

    def __init__(self, result: StageResult | None = None) -> None:
        self._result = result

    def with_options(self, **_: Any) -> "PlainCall":
        return self

    def __call__(self, spec: StageSpec, _settings: RunSettings, return_state: bool) -> "PlainCall":
        assert return_state
        return PlainCall(execute(spec))

    def result(self) -> StageResult | None:
        return self._result


def run_plain(config: str, home: str) -> None:
    """A campaign without Prefect: no flow run, no task, no event; all else is the campaign's own code."""
    from flows import closing, coevolution, promotion, tasks

    with (
        patch.object(tasks, "run_stage", PlainCall()),
        patch.object(coevolution, "take_over"),
        patch.object(promotion, "create_markdown_artifact"),
        patch.object(promotion, "emit_event"),
        patch.object(closing, "create_markdown_artifact"),
        patch.object(closing, "create_table_artifact"),
    ):
        coevolution.coevolution.fn(load_campaign(Path(config)), home)


def run_prefect(config: str, home: str) -> None:
    """The campaign as `aot run` starts it."""
    from flows.coevolution import coevolution

    coevolution(load_campaign(Path(config)), home)


def campaign_cost(kind: str, config: Path, api: str) -> Cost:
    """Run a campaign in a new process and a new home."""
    with tempfile.TemporaryDirectory(prefix="aot-bench-") as folder:
        home = Home(folder)
        home.create()
        environment = os.environ | home.environment() | {"PREFECT_API_URL": api}
        command = [sys.executable, __file__, "one", kind, str(config), folder]
        began, before = time.monotonic(), _children()
        subprocess.run(command, env=environment, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        cost = Cost(time.monotonic() - began, _children() - before)
        assert list(home.campaigns.glob("*/report.html")), "it came to its end"
        return cost


def _children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@contextmanager
def prefect_server() -> Generator[str]:
    """A Prefect server on loopback; yields its API's address."""
    import httpx

    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    api = f"http://127.0.0.1:{port}/api"
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    with tempfile.TemporaryDirectory(prefix="aot-bench-prefect-") as folder:
        environment = os.environ | {"PREFECT_HOME": folder, "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
        began = time.monotonic()
        with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL) as server:
            try:
                while not _answers(httpx, f"{api}/health"):
                    assert server.poll() is None, "the Prefect server ended"
                    time.sleep(0.2)
                print(f"Prefect server: started in {time.monotonic() - began:.1f} s", flush=True)
                yield api
            finally:
                server.terminate()


def _answers(httpx: Any, url: str) -> bool:
    try:
        return httpx.get(url).is_success
    except httpx.HTTPError:
        return False


def compare_campaigns(config: Path, repeats: int) -> None:
    """Pairs of a campaign without and with Prefect, the order turned round each time."""
    pairs: list[dict[str, Cost]] = []
    with prefect_server() as api:
        for number in range(repeats):
            order = KINDS if number % 2 == 0 else KINDS[::-1]
            pair = {kind: campaign_cost(kind, config, api) for kind in order}
            pairs.append(pair)
            load = " ".join(f"{value:.1f}" for value in os.getloadavg())
            shown = ", ".join(f"{kind} {cost.clock:.1f} s ({cost.cpu:.1f} s CPU)" for kind, cost in pair.items())
            print(f"pair {number + 1}: {shown}; load {load} on {os.cpu_count()} CPUs", flush=True)
    for what in Cost._fields:
        ratios = [getattr(pair["prefect"], what) / getattr(pair["plain"], what) for pair in pairs]
        print(
            f"under Prefect / plain calls, {what}: median {statistics.median(ratios):.3f} "
            f"({min(ratios):.3f} to {max(ratios):.3f}), n = {len(ratios)} pairs"
        )


def stage_cost(name: str) -> tuple[float, float]:
    """Seconds of launching, and seconds of work, of one stage under a launcher."""
    launcher = open_launcher(RunSettings.model_validate({"launcher": name}), execute, find)
    with tempfile.TemporaryDirectory(prefix="aot-bench-") as folder:
        place = Place(store=str(Path(folder) / "store"), device="cpu", threads=1)
        spec = plan_stage("prepare_data", CONFIG, PrepareDataInputs(), place)
        began = time.monotonic()
        record = launcher.run(spec).record
        seconds = time.monotonic() - began
        assert record is not None, "a launcher returns a record or raises"
        return seconds - record.seconds, record.seconds


def compare_launchers(launchers: list[str], repeats: int) -> None:
    """By turns. The first in-process run is a warm-up: it imports what the others' processes import every time."""
    stage_cost("inprocess")
    runs = [{name: stage_cost(name) for name in launchers} for _ in range(repeats)]
    load = " ".join(f"{value:.1f}" for value in os.getloadavg())
    print(f"seconds a stage, n = {len(runs)}; load {load} on {os.cpu_count()} CPUs")
    print(f"{'launcher':<12}{'overhead':>10}{'least':>8}{'most':>8}{'work':>8}")
    for name in launchers:
        costs, work = [run[name][0] for run in runs], [run[name][1] for run in runs]
        print(
            f"{name:<12}{statistics.median(costs):>10.2f}{min(costs):>8.2f}{max(costs):>8.2f}"
            f"{statistics.median(work):>8.2f}"
        )


def main() -> None:
    known = [n for n in get_args(RunSettings.model_fields["launcher"].annotation) if n != "kubernetes"]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = parser.add_subparsers(dest="part", required=True)
    campaign = parts.add_parser("campaign")
    campaign.add_argument("config", type=Path, nargs="?", default=ROOT / "configs" / "smoke.toml")
    campaign.add_argument("--repeats", type=int, default=3)
    stage = parts.add_parser("stage")
    stage.add_argument("--launchers", nargs="+", choices=known, default=known)
    stage.add_argument("--repeats", type=int, default=5)
    one = parts.add_parser("one", help="one campaign, in this process")
    one.add_argument("kind", choices=KINDS)
    one.add_argument("config")
    one.add_argument("home")
    given = parser.parse_args()
    if given.part == "campaign":
        compare_campaigns(given.config, given.repeats)
    elif given.part == "stage":
        compare_launchers(given.launchers, given.repeats)
    else:
        {"plain": run_plain, "prefect": run_prefect}[given.kind](given.config, given.home)


if __name__ == "__main__":
    main()
