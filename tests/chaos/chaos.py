"""Kills `aot run` at random moments, gives the same command again each time, and looks whether it all ends the same.

    python -m tests.chaos.chaos --kills 100 --folder /tmp/chaos [--seed 0]

A campaign runs undisturbed once, and tells how long each stage takes. Then, home after home, the same campaign is
killed by SIGKILL: half of the kills in the first minute of a new home, one after another, the rest stage by stage and
in the promotion, at a random moment of each. Half of the kills take the whole family of processes, the others the
command alone, whose server and stage go on as orphans. Then the campaign runs to its end: exit code 0, no traceback,
and artifact hashes, figures, the closing table, the alias and the ledger's account of it as undisturbed. The exit code
is 1 where one home is not, or where a stage or the promotion was never killed (with 50 kills or more).
"""

import argparse
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from aot_core.contracts.summary import CampaignSummary

ROOT = Path(__file__).parents[2]
YOUNG_SECONDS = 60.0
"""What counts as the first minute of a home."""
_LONGEST_RUN = 1200.0
_MEAN_YOUNG_SECONDS = 5.0
"""How long a new home's run lives on average: most die while it is being set up, a few reach the stages."""
_STEP = re.compile(r"(running|reused)\s+(start|round \d+)\s+(\w+)")
_PROMOTION = re.compile(r"there is no champion yet; measuring|registered .* gate:")


@dataclass
class Run:
    """One `aot run`: its process, and what it has said so far."""

    home: Path
    config: str
    stages: int = 1000
    """After how many stages, run or reused, the promotion begins."""
    process: "subprocess.Popen[str]" = field(init=False)
    said: list[str] = field(default_factory=list[str])
    where: str = "start"
    """The stage that runs, as `round 1 curate`; `start` before the first, and `promotion` after the last."""
    promoted_since: float = float("inf")
    """When, by the monotonic clock, the promotion first spoke."""
    _seen: int = 0

    def __post_init__(self) -> None:
        command = [sys.executable, "-m", "aot_core.commands.cli", "run", self.config, "--home", str(self.home)]
        kept = {
            name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "MLFLOW_TRACKING"))
        }
        self.process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=kept | {"COLUMNS": "200"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.said.append(line)
            if _PROMOTION.search(line):
                self.where = "promotion"
                self.promoted_since = min(self.promoted_since, time.monotonic())
            elif (found := _STEP.search(line)) and self.where != "promotion":  # which measures the base, too
                self._seen += 1
                if found[1] == "running":
                    self.where = f"{found[2]} {found[3]}"
                elif self._seen == self.stages:
                    self.where = "promotion"

    def comes_to(self, places: Collection[str]) -> bool:
        """Whether it came to one of these before it ended."""
        until = time.monotonic() + _LONGEST_RUN
        while self.where not in places and self.process.poll() is None and time.monotonic() < until:
            time.sleep(0.05)
        return self.where in places and self.process.poll() is None

    def survive(self, seconds: float) -> bool:
        """Let it run for so long; whether it is running still."""
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(seconds)
        return self.process.poll() is None

    def kill(self, *, family: bool) -> None:
        """SIGKILL, to the command alone or to all that it has started."""
        mine = psutil.Process(self.process.pid).children(recursive=True) if family else []
        self.process.kill()
        for child in mine:
            with suppress(psutil.NoSuchProcess):
                child.kill()
        self.process.wait()

    def finish(self) -> str:
        """Everything that it says, once it has ended."""
        self.process.wait(_LONGEST_RUN)
        self._reader.join(30)
        return "".join(self.said)


@dataclass(frozen=True)
class End:
    """What a campaign came to, without times and places."""

    steps: list[tuple[object, ...]]
    table: list[str]
    promoted: tuple[object, ...]
    ledger: list[str]


def end_of(home: Path, said: str) -> End:
    """What a finished campaign left."""
    from aot_core.store import LocalStore
    from aot_core.store.ledger import Ledger

    (file,) = (home / "campaigns").glob("*/summary.json")
    summary = CampaignSummary.model_validate_json(file.read_bytes())
    steps = [(s.round, s.record.stage, s.record.key, s.record.artifact.sha256, s.record.outputs) for s in summary.steps]
    decision = summary.decision
    entries = Ledger(LocalStore(home / "store"), "aot-defender").entries()
    # A kill may leave an intent that is given up and begun again: what counts is who leads by it in the end.
    moved = [f"{entry.from_version or 'none'} -> {entry.to_version}" for entry in entries if entry.kind == "done"]
    return End(
        steps=[tuple(step) for step in steps],
        table=[line.strip() for line in said.splitlines() if re.match(r"\s*[│┃┏┡└]", line)],
        promoted=(summary.status, summary.registered_version, summary.aliases, decision and decision.promote),
        ledger=moved,
    )


def differences(found: End, wanted: End) -> list[str]:
    """What of an end is not as wanted, a line each."""
    told: list[str] = []
    if [step[:4] for step in found.steps] != [step[:4] for step in wanted.steps]:
        pairs = zip(found.steps, wanted.steps, strict=False)
        odd = [str(mine[1]) for mine, theirs in pairs if mine[:4] != theirs[:4]]
        told.append(f"artifact hashes differ: {', '.join(odd) or 'another number of stages'}")
    if [step[4] for step in found.steps] != [step[4] for step in wanted.steps]:
        told.append("figures differ")
    told += [
        f"{name} differs" for name in ("table", "promoted", "ledger") if getattr(found, name) != getattr(wanted, name)
    ]
    return told


class Chaos:
    """So many kills, spread over as many homes as they need."""

    def __init__(self, folder: Path, kills: int, seed: int, config: str, a_home: int, young: int | None = None) -> None:
        """
        Args:
            a_home: kills of either kind that one home gets at most.
            young: how many of the kills fall in a home's first minute; half of them unless given.
        """
        self.folder, self.config, self.a_home = folder, config, a_home
        young = kills - kills // 2 if young is None else young
        self.left = {"young": young, "later": kills - young}
        self.kills, self.young, self.where = kills, young, Counter[str]()
        self.random = random.Random(seed)
        self.faults: list[str] = []
        self.homes = 0

    def run(self) -> int:
        """Do it all; returns the exit code."""
        clock = time.monotonic()
        self._run_undisturbed()
        print(f"undisturbed: {len(self.wanted.steps)} stages in {time.monotonic() - clock:.0f} s", flush=True)
        while sum(self.left.values()):
            self._one_home()
        print(
            f"{sum(self.where.values())} kills over {self.homes} homes in {time.monotonic() - clock:.0f} s, "
            f"{self.young} of them in a home's first minute"
        )
        for place in ("start", *self.seconds):
            print(f"  {place:28} {self.where[place]:3}")
        missed = [place for place in self.seconds if not self.where[place]]
        if missed and self.kills >= 50:
            self.faults.append(f"never killed in {', '.join(missed)}")
        print(f"{self.homes - self.unequal} of {self.homes} homes ended as undisturbed", flush=True)
        for fault in self.faults:
            print(fault)
        return 1 if self.faults else 0

    def _run_undisturbed(self) -> None:
        """What the campaign comes to by itself, and how many seconds its stages and the promotion take."""
        self.unequal = 0
        home = self.folder / "undisturbed"
        undisturbed = Run(home, self.config)
        said = undisturbed.finish()
        assert undisturbed.process.returncode == 0, said
        self.wanted = end_of(home, said)
        (file,) = (home / "campaigns").glob("*/summary.json")
        steps = CampaignSummary.model_validate_json(file.read_bytes()).steps
        self.seconds = {
            f"{f'round {s.round}' if s.round else 'start'} {s.record.stage}": s.record.seconds for s in steps
        }
        if undisturbed.promoted_since < float("inf"):  # else it stops before there is a Defender
            self.seconds["promotion"] = time.monotonic() - undisturbed.promoted_since

    def _one_home(self) -> None:
        self.homes += 1
        home = self.folder / f"home-{self.homes}"
        born, given = time.monotonic(), 0
        while self.left["young"] and given < self.a_home:
            after = 0.2 + self.random.expovariate(1 / _MEAN_YOUNG_SECONDS)
            if time.monotonic() - born + after > YOUNG_SECONDS:
                break
            run = Run(home, self.config, len(self.wanted.steps))
            if run.survive(after):
                self._kill(run, "young", after)
            given += 1
        places = list(self.seconds)
        each = max(1, round(self.a_home / len(places)))
        for place in [place for place in places for _ in range(each)]:
            if not self.left["later"]:
                break
            run = Run(home, self.config, len(self.wanted.steps))
            if run.comes_to(places[places.index(place) :]):
                after = self.random.uniform(0, self.seconds[run.where])
                if run.survive(after):
                    self._kill(run, "later", after)
        last = Run(home, self.config)
        said = last.finish()
        if last.process.returncode != 0 or "Traceback" in said:
            told = [f"exit code {last.process.returncode}"]
        else:
            told = differences(end_of(home, said), self.wanted)
        if told:
            self.unequal += 1
            self.faults.append(f"{home}: {'; '.join(told)}\n{said}")
        else:
            shutil.rmtree(home)
        print(f"home {self.homes}: {'; '.join(told) or 'ended as undisturbed'}", flush=True)

    def _kill(self, run: Run, kind: str, after: float) -> None:
        family = self.random.random() < 0.5
        place = run.where
        run.kill(family=family)
        self.left[kind] -= 1
        self.where[place] += 1
        whom = "all its processes" if family else "the command alone"
        number = sum(self.where.values())
        print(
            f"kill {number:3} of {self.kills}, home {self.homes}, {kind}: in {place}, {after:.1f} s, {whom}", flush=True
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--folder", type=Path, help="A new folder for the homes; a temporary one unless given.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--config", default="configs/smoke.toml")
    parser.add_argument("--a-home", type=int, default=20, help="Kills of either kind that one home gets at most.")
    arguments = parser.parse_args()
    folder = arguments.folder or Path(tempfile.mkdtemp(prefix="aot-chaos-"))
    folder.mkdir(parents=True, exist_ok=True)
    return Chaos(folder, arguments.kills, arguments.seed, arguments.config, arguments.a_home).run()


if __name__ == "__main__":
    sys.exit(main())
