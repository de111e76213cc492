"""How fast is the data pipeline, how much memory does it take, and do a second worker and a larger data set change it?

    python benchmarks/data.py --scenes 1000 10000 50000 --workers 1 2

Each row is a run of its own process from config to guarded data set: procedural scenes, the filter off. A scene is a
question with all its versions. Wall time depends on what else the machine does; CPU time hardly does, so both are
printed, and for several workers the CPU time of the longest way through: the parent's and a worker's share.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from aot_core.contracts.prepare_data import EffectivenessSettings, PrepareDataConfig, SplitSizes
from aot_core.data.build import BuildJob, build_dataset
from aot_core.data.dataset import MANIFEST, file_sha256
from aot_core.data.guard import guard_dataset

_HEAD = (
    f"{'scenes':>7} {'workers':>7} {'wall s':>8} {'cpu s':>8} {'cpu s/1000':>10} {'way s':>8} {'peak MiB':>9} manifest"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, nargs="+", default=[1000, 10_000, 50_000])
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--one", action="store_true", help="measure one run in this process, and print it as JSON")
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure(arguments.scenes[0], arguments.workers[0])))
        return
    print(_HEAD)
    for scenes in arguments.scenes:
        for workers in arguments.workers:
            command = [sys.executable, __file__, "--one", "--scenes", str(scenes), "--workers", str(workers)]
            said = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
            found = json.loads(said.splitlines()[-1])
            print(
                f"{scenes:>7} {workers:>7} {found['wall']:>8.1f} {found['cpu']:>8.1f} "
                f"{1000 * found['cpu'] / scenes:>10.2f} {found['way']:>8.1f} {found['peak']:>9.0f} "
                f"{found['manifest'][:12]}"
            )
            steps = {name: 1000 * seconds / scenes for name, seconds in found["steps"].items()}
            print(" " * 8, "cpu s/1000:", ", ".join(f"{name} {seconds:.2f}" for name, seconds in steps.items()))


def measure(scenes: int, workers: int) -> dict[str, object]:
    """One run: seconds, MiB, CPU seconds per step."""
    config = PrepareDataConfig(
        splits=SplitSizes(warm_start=scenes * 2 // 5, train=scenes * 2 // 5, evaluate=scenes - 2 * (scenes * 2 // 5)),
        effectiveness=EffectivenessSettings(enabled=False),
    )
    import torch

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        started, cpu = time.monotonic(), _cpu()
        made = build_dataset(BuildJob(config, None, root / "work"), root / "data", workers)
        guard_started = _cpu()
        guard_dataset(root / "data", config.implantation.min_ssim, root / "guard", config.guard, workers=workers)
        end = _cpu()
        manifest = file_sha256(root / "data" / MANIFEST)
    own, children = (end[i] - cpu[i] for i in (0, 1))
    peaks = [resource.getrusage(who).ru_maxrss / 1024 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    # "extension" holds its checks.
    steps = dict(made.seconds)
    steps["extension"] -= steps["checks"]
    return {
        "wall": time.monotonic() - started,
        "cpu": own + children,
        "way": own + children / max(1, workers),
        "peak": max(peaks),
        "manifest": manifest,
        "steps": {**steps, "guard": sum(end) - sum(guard_started)},
    }


def _cpu() -> tuple[float, float]:
    """CPU seconds of this process and of its children that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return used[0].ru_utime + used[0].ru_stime, used[1].ru_utime + used[1].ru_stime


if __name__ == "__main__":
    main()
