"""What a launcher costs a stage: seconds from the call to the result, less the seconds that the stage itself worked.

    python benchmarks/orchestration.py [--repeats 5] [--launchers inprocess subprocess docker]

The same small `prepare_data` under each launcher, by turns, in a new store every time; prints the median and the range.
The first in-process run is a warm-up: it imports what the others' processes import every time.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import get_args

from aot_core.contracts.campaign import RunSettings
from aot_core.contracts.prepare_data import EffectivenessSettings, PrepareDataConfig, PrepareDataInputs, SplitSizes
from aot_core.contracts.spec import Place
from aot_core.launch import open_launcher
from aot_core.stages.plan import plan_stage
from aot_core.stages.runner import execute, find

CONFIG = PrepareDataConfig(
    splits=SplitSizes(warm_start=24, train=8, evaluate=4), effectiveness=EffectivenessSettings(enabled=False)
)


def overhead(name: str) -> tuple[float, float]:
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


def main() -> None:
    known = [n for n in get_args(RunSettings.model_fields["launcher"].annotation) if n != "kubernetes"]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--launchers", nargs="+", choices=known, default=known)
    arguments = parser.parse_args()
    overhead("inprocess")
    runs = [{name: overhead(name) for name in arguments.launchers} for _ in range(arguments.repeats)]
    print(f"{'launcher':<12}{'overhead':>10}{'least':>8}{'most':>8}{'work':>8}   seconds a stage, n = {len(runs)}")
    for name in arguments.launchers:
        costs, work = [run[name][0] for run in runs], [run[name][1] for run in runs]
        print(
            f"{name:<12}{statistics.median(costs):>10.2f}{min(costs):>8.2f}{max(costs):>8.2f}"
            f"{statistics.median(work):>8.2f}"
        )


if __name__ == "__main__":
    main()
