"""Shards: the same bytes in any order and on any number of workers, and a kill loses at most one of them."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from aot_core.contracts.prepare_data import (
    CocoSettings,
    EffectivenessSettings,
    ImageFormat,
    PrepareDataConfig,
    SplitSizes,
)
from aot_core.contracts.scene import Sample
from aot_core.data.build import BuildJob, BuildSummary, assemble, build_dataset, make_shards, open_maker
from aot_core.data.dataset import MANIFEST, file_sha256, read_samples, wrong_hashes
from aot_core.data.shards import find_shard, wanted_shards
from aot_core.worlds.opening import open_source

CONFIG = PrepareDataConfig(
    splits=SplitSizes(warm_start=24, train=12, evaluate=8),
    effectiveness=EffectivenessSettings(enabled=False),
    shard_size=4,
)
SHARDS = 6 + 3 + 2

_SCRIPT = """
import sys
from pathlib import Path
from aot_core.contracts.prepare_data import PrepareDataConfig
from aot_core.data.build import BuildJob, build_dataset
if __name__ == "__main__":
    config = PrepareDataConfig.model_validate_json(sys.argv[1])
    build_dataset(BuildJob(config, None, Path(sys.argv[2]) / "work"), Path(sys.argv[2]) / "data", int(sys.argv[3]))
"""


def manifest(folder: Path) -> str:
    return file_sha256(folder / MANIFEST)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made in one go by one process."""
    folder = tmp_path_factory.mktemp("whole")
    build_dataset(BuildJob(CONFIG, None, folder / "work"), folder / "data")
    return folder


def test_shards_cover_what_is_wanted_and_share_out_whom_to_ask() -> None:
    config = CONFIG.model_copy(
        update={
            "splits": SplitSizes(warm_start=10, train=0, evaluate=5),
            "effectiveness": EffectivenessSettings(asked=7),
        }
    )
    shards = wanted_shards(config)
    assert [(shard.name, shard.wanted, shard.asked) for shard in shards] == [
        ("warm_start-00000", 4, 2),
        ("warm_start-00001", 4, 3),
        ("warm_start-00002", 2, 2),
        ("evaluate-00000", 4, None),
        ("evaluate-00001", 1, None),
    ]


def test_the_order_in_which_shards_are_made_does_not_matter(whole: Path, tmp_path: Path) -> None:
    job = BuildJob(CONFIG, None, tmp_path / "work")
    maker = open_maker(job)
    shards = wanted_shards(CONFIG)
    for shard in reversed(shards):
        maker.make(shard, job.shards_folder)
    summary = make_shards(job)
    assert summary.reused == len(shards) == SHARDS
    assemble(job, tmp_path / "data", summary)
    assert manifest(tmp_path / "data") == manifest(whole / "data")


def test_two_workers_make_the_same_bytes_as_one(whole: Path, tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", _SCRIPT, CONFIG.model_dump_json(), str(tmp_path), "2"], check=True)
    assert manifest(tmp_path / "data") == manifest(whole / "data")
    assert wrong_hashes(tmp_path / "data") == []


def test_finished_shards_are_taken_and_damaged_ones_made_again(whole: Path, tmp_path: Path) -> None:
    job = BuildJob(CONFIG, None, tmp_path / "work")
    make_shards(job)
    (job.shards_folder / "train-00001" / "shard.json").unlink()
    picture = next((job.shards_folder / "warm_start-00000").glob("*.png"))
    picture.write_bytes(b"spoilt")
    (job.shards_folder / ".train-00002.left-by-a-kill").mkdir()
    again = make_shards(job)
    assert again.reused == SHARDS - 2
    assert not list(job.shards_folder.glob(".*"))
    assemble(job, tmp_path / "data", again)
    assert manifest(tmp_path / "data") == manifest(whole / "data")


def test_shards_of_another_config_are_no_use(whole: Path) -> None:
    job = BuildJob(CONFIG, None, whole / "work")
    shard = wanted_shards(CONFIG)[0]
    assert find_shard(job.shards_folder, shard, job.key)
    other = BuildJob(CONFIG.model_copy(update={"seed": 1}), None, whole / "work")
    assert find_shard(other.shards_folder, shard, other.key) is None
    assert BuildJob(CONFIG, None, whole / "work", contents=("another source",)).key != job.key


def test_a_source_that_was_changed_is_indexed_anew(coco: Callable[..., Path], tmp_path: Path) -> None:
    """The work folder of a run that failed or was killed may hold the index of what the source was then."""
    config = CONFIG.model_copy(update={"source": CocoSettings(type="coco")})
    folder = coco()
    job = BuildJob(config, folder, tmp_path / "work", contents=("as it was",))
    assert "dog 0" in open_source(config, folder, job.index).names
    instances = json.loads((folder / "instances.json").read_text())
    instances["categories"][0]["name"] = "cat 0"
    (folder / "instances.json").write_text(json.dumps(instances))
    job = BuildJob(config, folder, tmp_path / "work", contents=("as it is",))
    assert "cat 0" in open_source(config, folder, job.index).names


def kill_and_finish(folder: Path, config: PrepareDataConfig, kills: int, rng: random.Random, shards: int) -> None:
    """Run a build, kill all of it after a random number of further shards, again and again; then let it finish."""
    command = [sys.executable, "-c", _SCRIPT, config.model_dump_json(), str(folder), "1"]
    done: dict[str, int] = {}
    for left in range(kills, 0, -1):
        process = subprocess.Popen(command, start_new_session=True)
        wait_for = len(done) + max(1, rng.randint(1, max(1, (shards - len(done)) // (left + 1))))
        deadline = time.monotonic() + 240
        while len(finished(folder)) < min(wait_for, shards - 1) and process.poll() is None:
            assert time.monotonic() < deadline, "it makes no shards"
            time.sleep(0.02)
        time.sleep(rng.random() * 0.05)
        assert process.poll() is None, "it was killed while it worked"
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        # What was finished before stands untouched: the same files, not made again.
        now = finished(folder)
        assert done.items() <= now.items()
        done = now
    subprocess.run(command, check=True)
    assert done.items() <= finished(folder).items()


def finished(folder: Path) -> dict[str, int]:
    """Finished shards, by name, with the inode that a remade one would not have."""
    records = (folder / "work" / "shards").glob("[!.]*/shard.json")
    return {record.parent.name: record.stat().st_ino for record in records}


def test_killed_and_started_again_it_ends_the_same(whole: Path, tmp_path: Path) -> None:
    kill_and_finish(tmp_path, CONFIG, 2, random.Random(0), SHARDS)
    assert manifest(tmp_path / "data") == manifest(whole / "data")


@pytest.mark.slow
def test_killed_at_ten_random_moments_it_ends_the_same(tmp_path: Path) -> None:
    config = CONFIG.model_copy(update={"splits": SplitSizes(warm_start=120, train=60, evaluate=20)})
    build_dataset(BuildJob(config, None, tmp_path / "whole/work"), tmp_path / "whole/data")
    kill_and_finish(tmp_path / "killed", config, 10, random.Random(time.time_ns()), 30 + 15 + 5)
    assert manifest(tmp_path / "killed/data") == manifest(tmp_path / "whole/data")


def test_datasets_loads_it_in_one_line(whole: Path, tmp_path: Path) -> None:
    from datasets import load_dataset

    from aot_core.data.card import describe, write_card

    folder = whole / "data"
    write_card(folder, describe(folder, manifest(folder)), [])
    data = load_dataset(str(folder), cache_dir=str(tmp_path))
    assert {name: len(split) for name, split in data.items()} == {"warm_start": 24, "train": 12, "evaluate": 32}
    for row, sample in zip(data["evaluate"], read_samples(folder, "evaluate"), strict=True):
        assert row["sample_id"] == sample.sample_id and row["answer"] == sample.question.answer
        assert row["image"].size == (64, 64)
        assert (row["edited"] is None) == (sample.edited_image is None)
        assert row["objects"]["bbox"] == [[b.x, b.y, b.width, b.height] for b in (o.box for o in sample.scene.objects)]


@pytest.mark.parametrize(("form", "suffix"), [("jpeg", "jpg"), ("webp", "webp")])
def test_lossy_formats_are_judged_as_they_are_stored(
    build: Callable[..., tuple[list[Sample], BuildSummary]], tmp_path: Path, form: str, suffix: str
) -> None:
    from aot_core.data.dataset import load_image
    from aot_core.worlds.similarity import localized_ssim

    config = CONFIG.model_copy(
        update={
            "splits": SplitSizes(warm_start=4, train=0, evaluate=0),
            "format": ImageFormat.model_validate({"type": form, "quality": 95}),
        }
    )
    samples, _ = build(config, tmp_path)
    for sample in samples:
        assert sample.image.endswith(suffix)
        clean, edited = load_image(tmp_path, sample.image), load_image(tmp_path, str(sample.edited_image))
        assert sample.ssim == pytest.approx(localized_ssim(clean, edited, sample.question.protected), abs=1e-5)
    assert min(sample.ssim or 0 for sample in samples) < 1
