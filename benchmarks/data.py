"""How fast is the data pipeline, how much memory does it take, and do a second worker and a larger data set change it?

    python benchmarks/data.py --scenes 1000 10000 50000 --workers 1 2
    python benchmarks/data.py --photographs 1000 100000

Each row is a run of its own process from config to guarded data set: procedural scenes, the filter off. A scene is a
question with all its versions. Wall time depends on what else the machine does; CPU time hardly does, so both are
printed, the parent's `own` part of it, which is not shared out, and the CPU time of the longest `way` through: the
parent's and a worker's share. What a process needs once, to load its libraries, is told apart (`start`): a small run
before the clock does it. What workers need to start is in the figures.

With `--photographs`, both sources of photographs are opened and read from instead: so many small files in a COCO
folder, so many rows of Parquet; index time, time of a picture, peak memory. `own MiB` is the peak without mapped files,
whose pages the system takes back when it wants them (Linux: RssAnon).
"""

import argparse
import io
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from aot_core.contracts.prepare_data import EffectivenessSettings, PrepareDataConfig, SplitSizes
from aot_core.data.build import BuildJob, build_dataset, notes_of
from aot_core.data.dataset import MANIFEST, file_sha256
from aot_core.worlds.opening import open_source

_HEAD = (
    f"{'scenes':>7} {'workers':>7} {'start s':>8} {'wall s':>8} {'cpu s':>8} {'cpu s/1000':>10} {'own s':>7} "
    f"{'way s':>7} {'peak MiB':>9} manifest"
)
_READ = 200
"""So many pictures are read, from all over the source."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, nargs="+", default=[1000, 10_000, 50_000])
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--photographs", type=int, nargs="+", help="measure the sources of photographs at these sizes")
    parser.add_argument("--one", choices=["scenes", "coco", "datasets"], help="one run in this process, as JSON")
    arguments = parser.parse_args()
    if arguments.one == "scenes":
        print(json.dumps(measure(arguments.scenes[0], arguments.workers[0])))
    elif arguments.one:
        print(json.dumps(measure_source(arguments.one, arguments.photographs[0])))
    elif arguments.photographs:
        print_sources(arguments.photographs)
    else:
        print_runs(arguments.scenes, arguments.workers)


def print_runs(sizes: list[int], workers: list[int]) -> None:
    """A row for every size and number of workers."""
    print(_HEAD)
    for scenes in sizes:
        for count in workers:
            found = run_apart("--one", "scenes", "--scenes", str(scenes), "--workers", str(count))
            print(
                f"{scenes:>7} {count:>7} {found['start']:>8.1f} {found['wall']:>8.1f} {found['cpu']:>8.1f} "
                f"{1000 * found['cpu'] / scenes:>10.2f} {found['own']:>7.1f} {found['way']:>7.1f} "
                f"{found['peak']:>9.0f} {found['manifest'][:12]}"
            )
            steps = {name: 1000 * seconds / scenes for name, seconds in found["steps"].items()}
            told = ", ".join(f"{name} {seconds:.2f}" for name, seconds in steps.items())
            print(" " * 8, "cpu s/1000:", told, flush=True)


def print_sources(sizes: list[int]) -> None:
    """A row for every kind of source and size."""
    print(f"{'source':>9} {'images':>8} {'open cpu s/1000':>16} {'cpu ms/picture':>15} {'own MiB':>8} {'peak MiB':>9}")
    for kind in ("coco", "datasets"):
        for size in sizes:
            found = run_apart("--one", kind, "--photographs", str(size))
            opening, reading = 1000 * found["open"] / size, 1000 * found["read"] / _READ
            told = f"{found['own']:>8.0f} {found['peak']:>9.0f}"
            print(f"{kind:>9} {size:>8} {opening:>16.3f} {reading:>15.2f} {told}", flush=True)


def run_apart(*arguments: str) -> dict[str, Any]:
    """What this program says in a process of its own, so that no peak of memory is another run's."""
    said = subprocess.run([sys.executable, __file__, *arguments], stdout=subprocess.PIPE, text=True, check=True).stdout
    return json.loads(said.splitlines()[-1])


def measure(scenes: int, workers: int) -> dict[str, Any]:
    """One run: seconds, MiB, CPU seconds per step."""
    import torch

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        started = time.process_time()
        make(10, 1, root / "first")
        start = time.process_time() - started
        clock, cpu = time.monotonic(), _cpu()
        steps = make(scenes, workers, root / "made")
        wall, end = time.monotonic() - clock, _cpu()
        manifest = file_sha256(root / "made/data" / MANIFEST)
    own, children = (end[i] - cpu[i] for i in (0, 1))
    return {
        "start": start,
        "wall": wall,
        "cpu": own + children,
        "own": own,
        "way": own + children / max(1, workers),
        "peak": peak(),
        "manifest": manifest,
        "steps": steps,
    }


def make(scenes: int, workers: int, folder: Path) -> dict[str, float]:
    """From config to guarded data set; CPU seconds per step."""
    # Late: workers import this file when they start, and have no use for these.
    from aot_core.data.checks import checks_frame
    from aot_core.data.guard import data_expectations, raise_for, validate

    config = PrepareDataConfig(
        splits=SplitSizes(warm_start=scenes * 2 // 5, train=scenes * 2 // 5, evaluate=scenes - 2 * (scenes * 2 // 5)),
        effectiveness=EffectivenessSettings(enabled=False),
    )
    before = sum(_cpu())
    job = BuildJob(config, None, folder / "work")
    made = build_dataset(job, folder / "data", workers)
    built = sum(_cpu())
    frame = checks_frame(folder / "data", None, workers, notes_of(job, made))
    looked = sum(_cpu())
    raise_for(validate(frame, data_expectations(config.implantation.min_ssim, config.guard)))
    joined = built - before - sum(made.seconds.values())
    return {**made.seconds, "join": joined, "guard's rows": looked - built, "guard's suite": sum(_cpu()) - looked}


def measure_source(kind: str, size: int) -> dict[str, float]:
    """Open a source of `size` photographs and read some: CPU seconds of both, and peak memory."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        # Written by another process: its memory is not the source's.
        code = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import data; from pathlib import Path"
        call = f"data.write_{kind}(Path({str(root / 'source')!r}), {size})"
        subprocess.run([sys.executable, "-c", f"{code}; {call}"], check=True)
        config = PrepareDataConfig.model_validate(
            {
                "source": {"type": kind},
                "implantation": {"evaluated": ["semantic"]},
                "effectiveness": {"enabled": False},
            }
        )
        with watched() as own:
            started = time.process_time()
            source = open_source(config, root / "source", root / "work")
            opened = time.process_time()
            for index in np.linspace(0, size - 1, _READ):
                source.picture(int(index))
            ended = time.process_time()
        return {"open": opened - started, "read": ended - opened, "own": max(own), "peak": peak()}


@contextmanager
def watched() -> Iterator[list[float]]:
    """What memory this process holds besides mapped files, MiB, every 10 ms; 0 where the system does not say."""
    held, done = [0.0], threading.Event()

    def watch() -> None:
        while not done.wait(0.01):
            for line in Path("/proc/self/status").read_text().splitlines():
                if line.startswith("RssAnon:"):
                    held.append(int(line.split()[1]) / 1024)

    watcher = threading.Thread(target=watch, daemon=True)
    if Path("/proc/self/status").is_file():
        watcher.start()
    try:
        yield held
    finally:
        done.set()
        if watcher.ident is not None:
            watcher.join()


def small_photographs() -> list[bytes]:
    """64 PNGs of 96 x 72 pixels."""
    rng, found = np.random.default_rng(0), []
    for _ in range(64):
        buffer = io.BytesIO()
        pixels = rng.integers(0, 256, (9, 12, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((96, 72)).save(buffer, format="PNG")
        found.append(buffer.getvalue())
    return found


_BOXES = [[8.0, 8.0, 30.0, 20.0], [50.0, 30.0, 24.0, 30.0]]


def write_coco(folder: Path, size: int) -> None:
    """A COCO folder of `size` files (links to 64), two boxes each."""
    (folder / "images").mkdir(parents=True)
    contents = small_photographs()
    for number, content in enumerate(contents):
        (folder / f"{number}.png").write_bytes(content)
    images, annotations = [], []
    for number in range(size):
        os.link(folder / f"{number % len(contents)}.png", folder / f"images/{number}.png")
        images.append({"id": number, "file_name": f"{number}.png", "width": 96, "height": 72})
        for place, box in enumerate(_BOXES):
            one = {"id": 2 * number + place, "image_id": number, "category_id": place, "bbox": box, "iscrowd": 0}
            annotations.append(one)
    categories = [{"id": 0, "name": "cup"}, {"id": 1, "name": "spoon"}]
    with (folder / "instances.json").open("w") as file:
        json.dump({"images": images, "annotations": annotations, "categories": categories}, file)


def write_datasets(folder: Path, size: int) -> None:
    """A Parquet file of `size` rows with their images inside, two boxes each."""
    import datasets
    import pyarrow as pa
    import pyarrow.parquet as pq

    boxes, names = datasets.List(datasets.List(datasets.Value("float64"))), datasets.List(datasets.Value("string"))
    objects = {"bbox": boxes, "category": names}
    schema = datasets.Features({"image": datasets.Image(), "objects": objects}).arrow_schema
    contents = small_photographs()

    def rows() -> Iterator[dict[str, Any]]:
        for number in range(size):
            image = {"bytes": contents[number % len(contents)], "path": None}
            yield {"image": image, "objects": {"bbox": _BOXES, "category": ["cup", "spoon"]}}

    folder.mkdir()
    with pq.ParquetWriter(folder / "train.parquet", schema) as file:
        waiting = rows()
        while batch := list(islice(waiting, 1000)):
            file.write_table(pa.Table.from_pylist(batch, schema=schema))


def peak() -> float:
    """The most memory that this process or one of its children has held, MiB."""
    return max(resource.getrusage(who).ru_maxrss / 1024 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


def _cpu() -> tuple[float, float]:
    """CPU seconds of this process and of its children that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return used[0].ru_utime + used[0].ru_stime, used[1].ru_utime + used[1].ru_stime


if __name__ == "__main__":
    main()
