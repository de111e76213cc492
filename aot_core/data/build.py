"""From a config to a data set on disk: shards made by workers, found again after a kill, assembled as a stream.

    config --missing shards--> workers (processes) --> WORK/SHARD/ ... --assemble--> OUTPUT/{data/, README.md, ...}

The work folder outlives a kill: the next run of the same build finds the finished shards there. The output is made of
hard links to them where the disk allows, so that nothing is written twice. No step's memory grows with the data set.
"""

import os
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import get_context, parent_process
from multiprocessing.connection import wait
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from aot_core.contracts.prepare_data import PrepareDataConfig
from aot_core.data.dataset import (
    DATA,
    MANIFEST,
    REJECTION_SCHEMA,
    REJECTIONS,
    SCHEMA,
    TABLE,
    file_sha256,
    write_manifest,
)
from aot_core.data.facts import FACTS, Note
from aot_core.data.growing import BuildPlan, plan_growth
from aot_core.data.pipeline import Helpers, ShardMaker, shares_of
from aot_core.data.shards import (
    REJECTED,
    ROWS,
    Shard,
    ShardRecord,
    build_key,
    find_shard,
    link,
    read_rows,
    sweep,
    wanted_shards,
)
from aot_core.data.snapshot import SnapshotShards, read_snapshot, write_snapshot
from aot_core.data.splits import SPLITS
from aot_core.startup import quick_exit, quick_imports
from aot_core.worlds.images import DataError
from aot_core.worlds.opening import open_source
from aot_core.worlds.sources import NamedByContent, Photographs, Unusable, refuse_if_too_many

HelpersFactory = Callable[[], Helpers]

_SHARDS_PER_WORKER = 4
"""A worker process takes seconds to start: fewer shards than this each are not worth one."""


@dataclass(frozen=True)
class BuildJob:
    """Everything that makes a shard, in a form that can be sent to another process or machine."""

    config: PrepareDataConfig
    folder: Path | None
    """The source folder."""
    work: Path
    """Where finished shards lie; on several machines, a disk that they share."""
    contents: tuple[str, ...] = ()
    """The sha256 (or hub name) of everything read from outside: with the config it identifies the build."""
    models: tuple[str, ...] = ()
    """Those of `contents` that are models: all that a growing source's shards depend on of them."""
    previous: Path | None = None
    """growing: the data set made before the folder grew."""
    open_helpers: HelpersFactory = Helpers
    """Loads the models, once a worker. A function at a module's top level, or a partial of one."""

    @property
    def key(self) -> str:
        return build_key(self.config, self.contents)

    @property
    def shards_folder(self) -> Path:
        return self.work / "shards"

    @property
    def index(self) -> Path:
        """Where the source's index lies: a folder of the build's own, as a source may have changed since another."""
        return self.work / f"source-{self.key[:16]}"


@dataclass
class BuildSummary:
    """What came of a build."""

    records: dict[str, ShardRecord] = field(default_factory=dict)
    """Shard to record, in the data set's order."""
    reused: int = 0
    """Shards that an earlier, killed run had finished."""
    plan: BuildPlan = field(default_factory=lambda: BuildPlan(shards=()))
    unusable: list[Unusable] = field(default_factory=list)
    """Photographs left out, each once."""

    @property
    def funnel(self) -> Counter[str]:
        """`step/outcome` to how often it happened."""
        total: Counter[str] = Counter()
        for record in self.records.values():
            total.update({name: n for name, n in record.funnel.items() if not name.startswith("source/")})
        # A photograph is met by many shards and counts once.
        total.update(f"source/{one.reason}" for one in self.unusable)
        total.update(f"split/{one.reason}" for one in self.plan.aside)
        return total

    @property
    def seconds(self) -> dict[str, float]:
        """CPU seconds per step, over all workers."""
        total: defaultdict[str, float] = defaultdict(float)
        for record in self.records.values():
            for step, seconds in record.seconds.items():
                total[step] += seconds
        return dict(total)


def build_dataset(job: BuildJob, output: Path, workers: int = 1) -> BuildSummary:
    """Make what is missing, and put the data set together in `output`.

    Raises DataError for a bad source, for too few samples, and for too many photographs that cannot be used.
    """
    made = make_shards(job, workers)
    return assemble(job, output, made)


def notes_of(job: BuildJob, made: BuildSummary) -> dict[str, Note]:
    """What the makers of the shards noted of their rows, for the guard of this build."""
    return {
        record.noted: Note(job.shards_folder / name / FACTS, record.files[FACTS], record.samples)
        for name, record in made.records.items()
        if record.noted
    }


def make_shards(job: BuildJob, workers: int = 1) -> BuildSummary:
    """Make the shards that neither the work folder nor the previous data set holds, in this process or in `workers`
    others."""
    sweep(job.shards_folder)
    plan = plan_build(job, workers)
    shards = plan.shards
    summary = BuildSummary(plan=plan)
    held = {shard.name: record for shard in shards if (record := find_shard(job.shards_folder, shard, job.key))}
    summary.reused = len(held)
    held |= _taken(job, [shard for shard in shards if shard.name in plan.kept and shard.name not in held])
    missing = [shard for shard in shards if shard.name not in held]
    made: dict[str, ShardRecord] = {}
    total = sum(shard.wanted for shard in shards)
    done = total - sum(shard.wanted for shard in missing)
    with tqdm(total=total, initial=done, desc="prepare_data", unit="question", disable=None) as bar:
        for shard, record in _run(job, missing, min(workers, len(missing) // _SHARDS_PER_WORKER)):
            made[shard.name] = record
            bar.update(shard.wanted)
    summary.records = {shard.name: held.get(shard.name) or made[shard.name] for shard in shards}
    return summary


def plan_build(job: BuildJob, workers: int = 1) -> BuildPlan:
    """The job's shards. A bad source is reported here, before any worker starts, and its index is made once."""
    if not job.config.growing:
        source = open_source(job.config, job.folder, job.index)
        shares_of(job.config, source.size)
        return BuildPlan(shards=tuple(wanted_shards(job.config)))
    if job.folder is None:
        raise DataError("source_folder: a growing source needs a folder; name the one that holds your photographs")
    previous = read_snapshot(job.previous) if job.previous else None
    before = file_sha256(job.previous / MANIFEST) if job.previous else ""
    path = job.index / f"plan-{before[:16] or 'first'}.json"
    if path.is_file():
        return BuildPlan.model_validate_json(path.read_bytes())
    plan = plan_growth(job.config, job.folder, job.index, job.models, previous, workers)
    partial = path.with_name(f"{path.name}.{os.getpid()}")
    partial.write_text(plan.model_dump_json())
    partial.replace(path)
    return plan


def _taken(job: BuildJob, shards: list[Shard]) -> dict[str, ShardRecord]:
    """These shards, taken over from the previous data set."""
    if not shards:
        return {}
    assert job.previous is not None, "only what a previous data set holds is kept"
    snapshot = read_snapshot(job.previous)
    assert snapshot is not None, "the plan was made by it"
    held = SnapshotShards(job.previous, snapshot)
    return {shard.name: held.take(shard, job.shards_folder) for shard in shards}


def _run(job: BuildJob, shards: list[Shard], workers: int) -> Iterator[tuple[Shard, ShardRecord]]:
    """Every shard with its record, as they are finished."""
    if workers < 2:
        with one_thread():
            maker = open_maker(job) if shards else None
            for shard in shards:
                assert maker is not None
                yield shard, maker.make(shard, job.shards_folder)
        return
    # Spawned, not forked: torch's threads do not survive a fork.
    context = get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker, initargs=(job,)) as pool:
        # The longest first, so that the workers finish together.
        longest = sorted(shards, key=lambda shard: _images(job.config, shard), reverse=True)
        futures: dict[Future[ShardRecord], Shard] = {pool.submit(_make_in_worker, shard): shard for shard in longest}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _images(config: PrepareDataConfig, shard: Shard) -> int:
    """About how many images a shard holds; the time to make it is proportional."""
    each = {"warm_start": 2, "train": 1, "evaluate": 1 + len(config.implantation.evaluated)}
    return each[shard.split] * shard.wanted


def make_one(job: BuildJob, name: str) -> ShardRecord:
    """Make the shard of that name, unless it is there: a task of its own, on whichever machine.

    Its process keeps the job's source and models open for the next one. Raises DataError as `make_shards`.
    """
    plan = plan_build(job)
    (shard,) = [shard for shard in plan.shards if shard.name == name]
    held = find_shard(job.shards_folder, shard, job.key)
    if held is not None:
        return held
    if name in plan.kept:
        return _taken(job, [shard])[name]
    # Tasks in threads of one process take turns: torch's number of threads is the process's.
    with _ONE_AT_A_TIME, one_thread():
        key = (job.key, job.work)
        if key not in _makers:
            _makers.clear()
            _makers[key] = open_maker(job)
        return _makers[key].make(shard, job.shards_folder)


_makers: dict[tuple[str, Path], ShardMaker] = {}
_ONE_AT_A_TIME = threading.Lock()


def open_maker(job: BuildJob) -> ShardMaker:
    """The maker of a job's shards, its source and models open."""
    source = open_source(job.config, job.folder, job.index)
    if job.config.growing:
        assert isinstance(source, Photographs), "the config takes `growing` for photographs alone"
        source = NamedByContent(source)
    return ShardMaker(job.config, source, job.key, job.open_helpers())


@contextmanager
def one_thread() -> Iterator[None]:
    """Mathematics on one thread inside the block: sums in another order would give other last bits."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


_worker: tuple[BuildJob, ShardMaker] | None = None


def _start_worker(job: BuildJob) -> None:
    global _worker
    _end_with_parent()
    quick_exit()
    with quick_imports():
        import torch

        torch.set_num_threads(1)
        _worker = (job, open_maker(job))


def _make_in_worker(shard: Shard) -> ShardRecord:
    assert _worker is not None, "the pool calls the initializer first"
    job, maker = _worker
    return maker.make(shard, job.shards_folder)


def _end_with_parent() -> None:
    """A worker whose parent was killed exits at once and leaves no partial shard in place."""
    parent = parent_process()
    assert parent is not None

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def assemble(job: BuildJob, output: Path, summary: BuildSummary) -> BuildSummary:
    """Put finished shards together: link their images, join their tables row group by row group, manifest last."""
    output.mkdir(parents=True, exist_ok=True)
    source = open_source(job.config, job.folder, job.index)
    left_out = source.unusable
    plan = summary.plan
    unusable = {one.detail: one for one in (*left_out, *plan.unusable)}
    with pq.ParquetWriter(output / REJECTIONS, REJECTION_SCHEMA) as rejections:
        beforehand = [_as_row(one) for one in unusable.values()] + [_as_row(one, "split") for one in plan.aside]
        rejections.write_table(pa.Table.from_pylist(beforehand, schema=REJECTION_SCHEMA))
        for split in SPLITS:
            own = [shard for shard in plan.shards if shard.split == split]
            if not own:
                continue
            if not any(summary.records[shard.name].samples for shard in own):
                raise DataError(f"splits.{split}: none of its photographs gave a sample; rejected: {summary.funnel}")
            (output / DATA / split).mkdir(parents=True, exist_ok=True)
            with pq.ParquetWriter(output / DATA / split / TABLE, SCHEMA) as table:
                for shard in own:
                    folder = job.shards_folder / shard.name
                    table.write_table(read_rows(folder / ROWS))
                    _link_images(folder, output / shard.base, summary.records[shard.name])
                    rejected = read_rows(folder / REJECTED)
                    rejections.write_table(rejected)
                    for row in rejected.to_pylist():
                        if row["step"] != "source":
                            continue
                        unusable.setdefault(row["detail"], Unusable(row["source_id"], row["reason"], row["detail"]))
    summary.unusable = [unusable[detail] for detail in sorted(unusable)]
    if source.size is not None:
        refuse_if_too_many(summary.unusable, source.size + len(left_out), source.max_rejected)
    if job.config.growing:
        write_snapshot(output, plan.snapshot(summary.records))
    write_manifest(output)
    return summary


def _as_row(one: Unusable, step: str = "source") -> dict[str, object]:
    return {"source_id": one.source_id, "step": step, "reason": one.reason, "detail": one.detail}


def _link_images(folder: Path, target: Path, record: ShardRecord) -> None:
    """Put a shard's images into the data set: the same bytes under a second name, copied where the disk has none."""
    target.mkdir(parents=True, exist_ok=True)
    for name in record.images:
        # Plain strings: for so many files a Path takes longer than the link.
        link(f"{folder}/{name}", f"{target}/{name}")
