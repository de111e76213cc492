"""What orchestration costs: a campaign with and without Prefect, and a stage under each launcher.

    python benchmarks/orchestration.py campaign [CONFIG] [--set run.threads=1] [--repeats 3] [--arms plain inprocess]
    python benchmarks/orchestration.py stage [--repeats 5] [--launchers inprocess subprocess docker]

`campaign` runs CONFIG (configs/smoke.toml) as plain function calls (the same code with Prefect's task taken out of it)
and under Prefect with each launcher, as `aot run` does it: a new process, a new home, Prefect's server started by the
process itself. The campaigns of a round go in step: one has its turn from before a stage to before its next, the others
wait, so that a machine whose speed drifts (6 % within ten minutes was seen) treats all alike; every second round goes
backwards. Printed are, as medians over the rounds: what the server's start took; what all the rest took as a ratio to
the plain campaign of the same round, by the clock and by the CPU seconds of the process and everything that it started,
the server among them (but not containers; it idles while the others have their turns, and that counts too); and what a
stage cost more. Seconds outside of the stages are the clock's less those that the stages' records name: an overhead in
which the stages' own unrest does not show.

A busy machine bends the clock, and with two threads the CPU seconds too (a thread that waits for the other spins): the
load is printed with every round, and `--set run.threads=1` gives steadier CPU seconds.

`stage` runs the same small `prepare_data` under each launcher, by turns, in a new store every time, and prints the
seconds from the call to the result, less those that the stage itself worked. What a new process imports after the
stage has begun counts as its work, so the whole time beside that of a call in a warm process is printed as well.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple, get_args
from unittest.mock import patch

import psutil
from prefect.client.orchestration import get_client

from aot_core.contracts.base import Frozen
from aot_core.contracts.campaign import CampaignConfig, RunSettings
from aot_core.contracts.loading import load_campaign
from aot_core.contracts.prepare_data import EffectivenessSettings, PrepareDataConfig, PrepareDataInputs, SplitSizes
from aot_core.contracts.spec import Place, StageResult, StageSpec
from aot_core.contracts.summary import CampaignSummary
from aot_core.engine.identity import stage_spec
from aot_core.engine.runner import execute, find
from aot_core.home import Home
from aot_core.launch import open_launcher
from flows import closing, coevolution, promotion, tasks

ROOT = Path(__file__).parents[1]
CONFIG = PrepareDataConfig(
    splits=SplitSizes(warm_start=24, train=8, evaluate=4), effectiveness=EffectivenessSettings(enabled=False)
)
LAUNCHERS = tuple(n for n in get_args(RunSettings.model_fields["launcher"].annotation) if n != "kubernetes")
PLAIN = "plain"


class Server(Frozen):
    """What Prefect's server costs, in seconds; nothing where there is none."""

    clock: float = 0
    """Until it answered."""
    cpu: float = 0
    """Until then, with what the campaign's process spent on starting it."""
    serving: float = 0
    """CPU seconds after that, while the campaign ran."""


class Told(Frozen):
    """What a campaign's own process says of it."""

    server: Server
    work: tuple[tuple[str, float], ...]
    """Each stage's name and the seconds that its record names, as they came."""
    cpu: float
    """CPU seconds of the thread that called the stages, in those calls; 0 where another process ran them."""


class Cost(NamedTuple):
    """Of one campaign from its process's start to its end, in seconds, without the start of Prefect's server."""

    turns: tuple[float, ...]
    """By the clock: from the start to before the first stage, and from before each stage to before the next or the
    end. The first holds the server's start."""
    clock: float
    cpu: float
    """Of its process and what that one started, but for containers."""
    outside: float
    """By the clock, outside of the stages."""
    outside_cpu: float
    """The same in CPU seconds, if the stages ran in the process."""
    server: Server
    work: tuple[tuple[str, float], ...]
    """As it was told."""


class PlainCall:
    """Stands where `flows.tasks.run_stage` stands, and only calls the stage."""

    def __init__(self, result: StageResult | None = None) -> None:
        self._result = result

    def with_options(self, **_: Any) -> "PlainCall":
        return self

    def __call__(self, spec: StageSpec, _settings: RunSettings, return_state: bool) -> "PlainCall":
        assert return_state
        return PlainCall(tasks.execute(spec))

    def result(self) -> StageResult | None:
        return self._result


def run_plain(config: CampaignConfig, home: str) -> Server:
    """A campaign without Prefect: no server, no flow run, no task, no event; all else is the campaign's own code."""
    with (
        patch.object(tasks, "run_stage", PlainCall()),
        patch.object(coevolution, "take_over"),
        patch.object(promotion, "create_markdown_artifact"),
        patch.object(promotion, "emit_event"),
        patch.object(closing, "create_markdown_artifact"),
        patch.object(closing, "create_table_artifact"),
    ):
        coevolution.coevolution.fn(config, home)
    assert not psutil.Process().children(), "nothing has asked for a Prefect server"
    return Server()


def run_prefect(config: CampaignConfig, home: str) -> Server:
    """The campaign as `aot run` starts it, but with the start of Prefect's server apart."""
    clock, cpu = time.monotonic(), time.process_time()
    with get_client(sync_client=True) as client:
        client.hello().raise_for_status()
    clock, cpu = time.monotonic() - clock, time.process_time() - cpu
    (server,) = psutil.Process().children()
    started = _cpu_of(server)
    coevolution.coevolution(config, home)
    return Server(clock=clock, cpu=cpu + started, serving=_cpu_of(server) - started)


def _cpu_of(process: psutil.Process) -> float:
    used = process.cpu_times()
    return used.user + used.system


def run_one(arm: str, config_json: str, home: str, go: int, ready: int) -> None:
    """A campaign in this process, which waits before each stage for its turn; what it has to tell is the last line that
    it prints. `go` and `ready` are file descriptors: a byte for each turn that is given, and for each that is over."""
    calls: list[float] = []

    def in_turn(*of: Any, **stage: Any) -> StageSpec:
        os.write(ready, b".")
        assert os.read(go, 1), "who gives the turns is gone"
        return spec_of(*of, **stage)

    def timed(spec: StageSpec) -> StageResult:
        began = time.thread_time()
        try:
            return execute(spec)
        finally:
            calls.append(time.thread_time() - began)

    spec_of = tasks.spec_of
    config = CampaignConfig.model_validate_json(config_json)
    with patch.object(tasks, "spec_of", in_turn), patch.object(tasks, "execute", timed):
        server = (run_plain if arm == PLAIN else run_prefect)(config, home)
    (file,) = Home(home).campaigns.glob("*/summary.json")
    summary = CampaignSummary.model_validate_json(file.read_bytes())
    assert summary.status == "finished" and file.with_name("report.html").exists(), "it came to its end"
    work = tuple((step.record.stage, step.record.seconds) for step in summary.steps)
    print(Told(server=server, work=work, cpu=sum(calls)).model_dump_json())


class RunningCampaign:
    """A campaign in a process of its own and a new home, which goes on while it has its turn."""

    def __init__(self, arm: str, config: CampaignConfig) -> None:
        if arm != PLAIN:
            config = config.model_copy(update={"run": config.run.model_copy(update={"launcher": arm})})
        self._arm, self._config = arm, config
        self._turns: list[float] = []
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> "RunningCampaign":
        self._folder = tempfile.TemporaryDirectory(prefix="aot-bench-")
        self._says = tempfile.TemporaryFile("w+")
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.terminate()
            self._process.wait()
        if self._process is not None:
            os.close(self._go)
            os.close(self._ready)
        self._says.close()
        self._folder.cleanup()

    def turn(self) -> bool:
        """Let it go on to before its next stage; False once it has come to its end."""
        began = time.monotonic()
        if self._process is None:
            self._start()
        else:
            os.write(self._go, b".")
        goes_on = bool(os.read(self._ready, 1))
        if not goes_on:
            assert self._process is not None
            _, status, used = os.wait4(self._process.pid, 0)
            self._process.returncode = os.waitstatus_to_exitcode(status)
            self._cpu = used.ru_utime + used.ru_stime
        self._turns.append(time.monotonic() - began)
        return goes_on

    def _start(self) -> None:
        home = Home(self._folder.name)
        home.create()
        alone = {name: value for name, value in os.environ.items() if name != "PREFECT_API_URL"}
        theirs, self._go = os.pipe()
        self._ready, tells = os.pipe()
        command = [sys.executable, __file__, "one", self._arm, self._config.model_dump_json(), str(home.root)]
        self._process = subprocess.Popen(
            [*command, str(theirs), str(tells)],
            env=alone | home.environment(),
            cwd=ROOT,
            stdout=self._says,
            text=True,
            pass_fds=(theirs, tells),
        )
        os.close(theirs)
        os.close(tells)

    def cost(self) -> Cost:
        """After the end."""
        assert self._process is not None and self._process.returncode == 0, f"{self._arm}: it failed"
        self._says.seek(0)
        told = Told.model_validate_json(self._says.read().splitlines()[-1])
        clock, cpu = sum(self._turns) - told.server.clock, self._cpu - told.server.cpu
        outside = clock - sum(seconds for _, seconds in told.work)
        return Cost(tuple(self._turns), clock, cpu, outside, cpu - told.cpu, told.server, told.work)


def compare_campaigns(config: CampaignConfig, arms: list[str], repeats: int) -> None:
    """Rounds of one campaign an arm, in step, and what each arm costs beside the plain one of its round."""
    rounds: list[dict[str, Cost]] = []
    for number in range(repeats):
        with ExitStack() as stack:
            campaigns = {arm: stack.enter_context(RunningCampaign(arm, config)) for arm in arms}
            in_turn = arms if number % 2 == 0 else arms[::-1]
            while in_turn:
                in_turn = [arm for arm in in_turn if campaigns[arm].turn()]
            rounds.append({arm: campaigns[arm].cost() for arm in arms})
        for arm, cost in rounds[-1].items():
            print(
                f"round {number + 1}, {arm}: {cost.clock:.1f} s ({cost.outside:.1f} outside of the stages), CPU "
                f"{cost.cpu:.1f} s; server's start {cost.server.clock:.1f} s, CPU {cost.server.cpu:.1f} s; {_load()}",
                flush=True,
            )
    print(f"{config.name}, {len(rounds[0][arms[0]].work)} stages, n = {repeats} rounds: median (least to most)")
    for arm in arms:
        print(arm)
        mine = [costs[arm] for costs in rounds]
        _row("seconds by the clock", [cost.clock for cost in mine])
        _row("seconds outside of the stages", [cost.outside for cost in mine])
        _row("CPU seconds", [cost.cpu for cost in mine])
        if arm != PLAIN:
            _row("server's start, seconds", [cost.server.clock for cost in mine])
            _row("server's start, CPU seconds", [cost.server.cpu for cost in mine])
            _row("server thereafter, CPU seconds", [cost.server.serving for cost in mine])
        if arm != PLAIN and PLAIN in arms:
            _beside_plain(arm, [(cost, costs[PLAIN]) for cost, costs in zip(mine, rounds, strict=True)])


def _beside_plain(arm: str, pairs: list[tuple[Cost, Cost]]) -> None:
    stages = len(pairs[0][0].work)
    _row("ratio to plain, clock", [mine.clock / plain.clock for mine, plain in pairs])
    each = [mine / plain for pair in pairs for mine, plain in zip(pair[0].turns[1:], pair[1].turns[1:], strict=True)]
    _row("ratio of each stage, clock", each)
    for name in dict(pairs[0][0].work):
        more = [
            theirs - plainly
            for mine, plain in pairs
            for (stage, theirs), (_, plainly) in zip(mine.work, plain.work, strict=True)
            if stage == name
        ]
        _row(f"more inside {name}, seconds", more)
    _row("more a stage, seconds", [(mine.clock - plain.clock) / stages for mine, plain in pairs])
    _row("and outside of it, seconds", [(mine.outside - plain.outside) / stages for mine, plain in pairs])
    if arm != "docker":
        _row("ratio to plain, CPU", [mine.cpu / plain.cpu for mine, plain in pairs])
        _row("more a stage, CPU seconds", [(mine.cpu - plain.cpu) / stages for mine, plain in pairs])
    if arm == "inprocess":
        _row("and outside, CPU seconds", [(mine.outside_cpu - plain.outside_cpu) / stages for mine, plain in pairs])


def _row(name: str, found: list[float]) -> None:
    print(f"  {name:<42}{statistics.median(found):>9.3f}  ({min(found):.3f} to {max(found):.3f})")


def _load() -> str:
    return f"load {' '.join(f'{value:.1f}' for value in os.getloadavg())} on {os.cpu_count()} CPUs"


class StageCost(NamedTuple):
    """Of one stage under a launcher, in seconds."""

    launching: float
    work: float


def stage_cost(name: str) -> StageCost:
    """Run a small stage, in a new store."""
    launcher = open_launcher(RunSettings.model_validate({"launcher": name}), execute, find)
    with tempfile.TemporaryDirectory(prefix="aot-bench-") as folder:
        place = Place(store=str(Path(folder) / "store"), device="cpu", threads=1)
        spec = stage_spec("prepare_data", CONFIG, PrepareDataInputs(), place)
        began = time.monotonic()
        record = launcher.run(spec).record
        seconds = time.monotonic() - began
        assert record is not None, "a launcher returns a record or raises"
        return StageCost(seconds - record.seconds, record.seconds)


def compare_launchers(launchers: list[str], repeats: int) -> None:
    """By turns. The first in-process run is a warm-up: it imports what the others' processes import every time."""
    stage_cost("inprocess")
    runs = [{name: stage_cost(name) for name in launchers} for _ in range(repeats)]
    print(f"seconds a stage, n = {len(runs)}; {_load()}")
    for name in launchers:
        print(name)
        _row("launching", [run[name].launching for run in runs])
        _row("work", [run[name].work for run in runs])
        if "inprocess" in launchers and name != "inprocess":
            _row("longer than in process", [sum(run[name]) - sum(run["inprocess"]) for run in runs])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = parser.add_subparsers(dest="part", required=True)
    campaign = parts.add_parser("campaign")
    campaign.add_argument("config", type=Path, nargs="?", default=ROOT / "configs" / "smoke.toml")
    campaign.add_argument("--set", action="append", default=[], dest="overrides")
    campaign.add_argument("--arms", nargs="+", choices=(PLAIN, *LAUNCHERS), default=[PLAIN, *LAUNCHERS])
    campaign.add_argument("--repeats", type=int, default=3)
    stage = parts.add_parser("stage")
    stage.add_argument("--launchers", nargs="+", choices=LAUNCHERS, default=list(LAUNCHERS))
    stage.add_argument("--repeats", type=int, default=5)
    one = parts.add_parser("one", help="one campaign, in this process")
    for name, kind in {"arm": str, "config": str, "home": str, "go": int, "ready": int}.items():
        one.add_argument(name, type=kind)
    given = parser.parse_args()
    if given.part == "campaign":
        compare_campaigns(load_campaign(given.config, given.overrides), given.arms, given.repeats)
    elif given.part == "stage":
        compare_launchers(given.launchers, given.repeats)
    else:
        run_one(given.arm, given.config, given.home, given.go, given.ready)


if __name__ == "__main__":
    main()
