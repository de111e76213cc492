"""Kills `aot run` at random moments, gives the same command again each time, and looks whether it all ends the same.

    python -m tests.chaos.chaos --kills 100 --folder /tmp/chaos [--seed 0]

A campaign runs undisturbed once. Then, home after home, the same campaign is killed by SIGKILL: half of the kills in
the first minute of a new home, one after another, the rest in a stage or in the promotion, drawn at random; and half of
them take the whole family of processes, the others the command alone, whose server and stage go on as orphans. Then the
campaign runs to its end: exit code 0, no traceback, and artifact hashes, figures, the closing table, the alias and the
ledger's account of it as undisturbed. The exit code is 1 where one home is not.
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
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from aot_core.contracts.summary import CampaignSummary

ROOT = Path(__file__).parents[2]
YOUNG_SECONDS = 60.0
"""What counts as the first minute of a home."""
_LONGEST_RUN = 1200.0
_BEGUN = re.compile(r"running\s+(?:start|round \d+)\s+(\w+)")


@dataclass
class Run:
    """One `aot run`: its process, and what it has said so far."""

    home: Path
    config: str
    process: "subprocess.Popen[str]" = field(init=False)
    said: list[str] = field(default_factory=list[str])
    where: str = "start"
    """The stage that has begun last, or `promotion`."""

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
            if found := _BEGUN.search(line):
                self.where = found[1]
            elif line.startswith("registered ") and "gate:" in line:
                self.where = "promotion"

    def wait_for(self, where: str, seconds: float) -> bool:
        """Whether it came there before it ended."""
        until = time.monotonic() + seconds
        while self.where != where and self.process.poll() is None and time.monotonic() < until:
            time.sleep(0.05)
        return self.where == where and self.process.poll() is None

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


def done_stages(home: Path) -> int:
    """How many stages the campaign of a home has finished; none where it has not come to its first summary."""
    files = list((home / "campaigns").glob("*/summary.json"))
    return len(CampaignSummary.model_validate_json(files[0].read_bytes()).steps) if files else 0


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

    def __init__(self, folder: Path, kills: int, seed: int, config: str, a_home: int) -> None:
        """
        Args:
            a_home: kills of either kind that one home gets at most.
        """
        self.folder, self.config, self.a_home = folder, config, a_home
        self.left = {"young": kills - kills // 2, "later": kills // 2}
        self.kills, self.where = kills, Counter[str]()
        self.random = random.Random(seed)
        self.faults: list[str] = []
        self.homes = 0

    def run(self) -> int:
        """Do it all; returns the exit code."""
        clock = time.monotonic()
        baseline = Run(self.folder / "undisturbed", self.config)
        said = baseline.finish()
        assert baseline.process.returncode == 0, said
        self.wanted = end_of(self.folder / "undisturbed", said)
        self.places = [*(str(step[1]) for step in self.wanted.steps), "promotion"]
        print(f"undisturbed: {len(self.wanted.steps)} stages in {time.monotonic() - clock:.0f} s", flush=True)
        while sum(self.left.values()):
            self._one_home()
        done = sum(self.where.values())
        places = ", ".join(f"{place} {count}" for place, count in self.where.most_common())
        print(
            f"{done} kills over {self.homes} homes in {time.monotonic() - clock:.0f} s "
            f"({self.kills - self.kills // 2} of them in a home's first minute): {places}"
        )
        print(f"{self.homes - len(self.faults)} of {self.homes} homes ended as undisturbed", flush=True)
        for fault in self.faults:
            print(fault)
        return 1 if self.faults else 0

    def _one_home(self) -> None:
        self.homes += 1
        home = self.folder / f"home-{self.homes}"
        born, given = time.monotonic(), 0
        while self.left["young"] and given < self.a_home:
            after = self.random.uniform(0.2, min(20.0, YOUNG_SECONDS / self.a_home * 1.5))
            if time.monotonic() - born + after > YOUNG_SECONDS:
                break
            run = Run(home, self.config)
            if run.survive(after):
                self._kill(run, "young", after)
            given += 1
        given = 0
        while self.left["later"] and given < self.a_home:
            given += 1
            place, after = self.random.choice(self.places[done_stages(home) :]), self.random.uniform(0, 6)
            run = Run(home, self.config)
            if run.wait_for(place, _LONGEST_RUN) and run.survive(after):
                self._kill(run, "later", after)
        last = Run(home, self.config)
        said = last.finish()
        if last.process.returncode != 0 or "Traceback" in said:
            self.faults.append(f"{home}: exit code {last.process.returncode}\n{said}")
            return
        told = differences(end_of(home, said), self.wanted)
        if told:
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
    parser.add_argument("--a-home", type=int, default=5, help="Kills of either kind that one home gets at most.")
    arguments = parser.parse_args()
    folder = arguments.folder or Path(tempfile.mkdtemp(prefix="aot-chaos-"))
    folder.mkdir(parents=True, exist_ok=True)
    return Chaos(folder, arguments.kills, arguments.seed, arguments.config, arguments.a_home).run()


if __name__ == "__main__":
    sys.exit(main())
