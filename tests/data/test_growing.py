"""A folder of photographs that grows: only what is new is made, and nothing that stood changes its place."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from pydantic import ValidationError
from typer.testing import CliRunner

from aot_core.commands.cli import app
from aot_core.contracts.prepare_data import (
    CocoSettings,
    DatasetsSettings,
    EffectivenessSettings,
    ExtensionSettings,
    GuardSettings,
    ImplantationSettings,
    PrepareDataConfig,
    SplitSizes,
)
from aot_core.data.build import BuildJob, BuildSummary, build_dataset
from aot_core.data.dataset import MANIFEST, REJECTIONS, file_sha256, iter_samples, wrong_hashes
from aot_core.data.growing import _Look, _Sorting, split_of
from aot_core.data.guard import guard_dataset
from aot_core.data.snapshot import SNAPSHOT, Snapshot, SnapshotPicture, read_snapshot
from aot_core.store.manifest import manifest_of
from aot_core.worlds.images import DataError

PHOTOS = Path(__file__).parents[2] / "configs" / "photos.toml"
CONFIG = PrepareDataConfig(
    source=CocoSettings(type="coco"),
    splits=SplitSizes(warm_start=3, train=0, evaluate=2),
    extension=ExtensionSettings(enabled=False),
    effectiveness=EffectivenessSettings(enabled=False),
    implantation=ImplantationSettings(evaluated=("semantic",), evaluated_distractors=1, distractors=(1, 1)),
    shard_size=6,
    growing=True,
    questions_per_picture=2,
)


@pytest.fixture(scope="session")
def write(photograph: Callable[[int], Image.Image], things: list[Any]) -> Callable[..., Path]:
    """Writes a COCO folder of the photographs of these numbers, in this order; one of -1 - n has no things."""

    def folder_of(folder: Path, numbers: Iterable[int]) -> Path:
        (folder / "images").mkdir(parents=True, exist_ok=True)
        instances: dict[str, Any] = {"images": [], "annotations": [], "categories": []}
        for kind in range(5):
            for place, (name, _) in enumerate(things):
                instances["categories"].append({"id": 10 * kind + place, "name": f"{name} {kind}"})
        for image_id, number in enumerate(numbers):
            name = f"photo {number}.png"
            if not (folder / "images" / name).is_file():
                photograph(number & 0xFFFF).save(folder / "images" / name)
            instances["images"].append({"id": image_id, "file_name": name, "width": 200, "height": 150})
            for place, (_, box) in enumerate(things if number >= 0 else ()):
                row = {"image_id": image_id, "category_id": 10 * (number % 5) + place, "bbox": list(box)}
                instances["annotations"].append({"id": len(instances["annotations"]), "iscrowd": 0, **row})
        (folder / "instances.json").write_text(json.dumps(instances))
        return folder

    return folder_of


def job(folder: Path, work: Path, previous: Path | None = None, config: PrepareDataConfig = CONFIG) -> BuildJob:
    return BuildJob(config, folder, work, (manifest_of(folder).sha256,), previous=previous)


def snapshot(folder: Path) -> Snapshot:
    found = read_snapshot(folder)
    assert found is not None
    return found


def made_of(folder: Path) -> dict[str, set[str]]:
    """Shard key to the contents of its photographs."""
    held = snapshot(folder)
    return {shard.key: {held.pictures[n].content for n in shard.pictures} for shard in held.shards}


def splits(folder: Path) -> dict[str, str]:
    return {picture.content: picture.split for picture in snapshot(folder).pictures}


@pytest.fixture(scope="module")
def first(write: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, BuildSummary]:
    """The data set of 30 photographs, beside their folder."""
    folder = tmp_path_factory.mktemp("first")
    return folder, build_dataset(job(write(folder / "source", range(30)), folder / "work"), folder / "data")


def test_a_folder_that_grew_by_a_tenth_makes_the_new_shards_alone(write: Callable[..., Path], tmp_path: Path) -> None:
    """Through the user's door, the new photographs anywhere in the annotation file, on one worker and on two."""
    source = write(tmp_path / "source", range(30))
    settings = [
        f"source_folder={source}", "prepare_data.growing=true", "prepare_data.shard_size=8",
        "prepare_data.source.max_side=200", "prepare_data.extension.enabled=false",
    ]  # fmt: skip

    def build(name: str, *options: str) -> str:
        command = ["data", "build", str(PHOTOS), str(tmp_path / name), *options]
        result = CliRunner().invoke(app, [*command, *(part for one in settings for part in ("--set", one))])
        assert result.exit_code == 0, result.output
        return result.output

    assert ", 0 reused; photographs: 30 new, 0 gone" in build("first")
    write(source, [31, *range(7), 30, *range(7, 30), 32])
    told = build("second", "--previous", str(tmp_path / "first"))
    build("again", "--previous", str(tmp_path / "first"), "--workers", "2")
    assert manifest_of(tmp_path / "again") == manifest_of(tmp_path / "second")

    before, after = made_of(tmp_path / "first"), made_of(tmp_path / "second")
    made = {key: contents for key, contents in after.items() if key not in before}
    assert before.items() <= after.items(), "every shard stands"
    old = set().union(*before.values())
    assert len(set().union(*made.values())) == 3 and not set().union(*made.values()) & old, "of new photographs alone"
    assert f"{len(made)} shards made, {len(before)} reused; photographs: 3 new, 0 gone" in told
    card = json.loads((tmp_path / "second/card.json").read_text())
    assert card["growth"] | {"shards made": len(made), "shards reused": len(before)} == card["growth"]
    assert f"shards reused {len(before)}" in (tmp_path / "second/README.md").read_text()
    # The same samples, and the same files under a second name.
    samples = {sample.sample_id: sample for sample in iter_samples(tmp_path / "second")}
    for sample in iter_samples(tmp_path / "first"):
        assert samples[sample.sample_id] == sample
        assert (tmp_path / "first" / sample.image).samefile(tmp_path / "second" / sample.image)
    assert wrong_hashes(tmp_path / "second") == []


def test_killed_while_it_makes_the_new_shards_it_ends_the_same(write: Callable[..., Path], tmp_path: Path) -> None:
    config = CONFIG.model_copy(update={"shard_size": 2})
    old = tmp_path / "old"
    source = write(tmp_path / "source", range(12))
    build_dataset(job(source, tmp_path / "old-work", config=config), old)
    write(source, range(24))
    build_dataset(job(source, tmp_path / "whole-work", old, config), tmp_path / "whole")
    script = (
        "import sys; from pathlib import Path; from aot_core.contracts.prepare_data import PrepareDataConfig\n"
        "from aot_core.data.build import BuildJob, build_dataset\n"
        "c, s, w, sha, p, o = sys.argv[1:]\n"
        "job = BuildJob(PrepareDataConfig.model_validate_json(c), Path(s), Path(w), (sha,), previous=Path(p))\n"
        "print(build_dataset(job, Path(o)).reused)"
    )
    named = job(source, tmp_path / "work", old, config)
    arguments = [config.model_dump_json(), source, named.work, named.contents[0], old, tmp_path / "data"]
    command = [sys.executable, "-c", script, *map(str, arguments)]
    process = subprocess.Popen(command, start_new_session=True)
    deadline = time.monotonic() + 200
    while len(list((named.work / "shards").glob("[!.]*/shard.json"))) < 14:  # 12 that stand, and some of the 12 new
        assert time.monotonic() < deadline and process.poll() is None, "it makes no shards"
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    found = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert 14 <= int(found) < 24
    assert manifest_of(tmp_path / "data") == manifest_of(tmp_path / "whole")


def test_what_goes_or_is_corrected_dissolves_its_own_shard_and_keeps_its_split(
    first: tuple[Path, BuildSummary], write: Callable[..., Path], tmp_path: Path
) -> None:
    source = write(tmp_path / "source", [n for n in range(30) if n != 4])
    instances = json.loads((source / "instances.json").read_text())
    instances["annotations"][0]["bbox"][2] -= 6
    (source / "instances.json").write_text(json.dumps(instances))
    config = CONFIG.model_copy(update={"shard_size": 60, "questions_per_picture": 2})  # No shard borrows
    old = tmp_path / "old"
    build_dataset(job(first[0] / "source", tmp_path / "old-work", config=config), old)
    write(tmp_path / "more", range(36))
    build_dataset(job(tmp_path / "more", tmp_path / "more-work", old, config), tmp_path / "more-data")
    summary = build_dataset(job(source, tmp_path / "work", tmp_path / "more-data", config), tmp_path / "data")
    before, after = made_of(tmp_path / "more-data"), made_of(tmp_path / "data")
    gone = set(splits(tmp_path / "more-data")) - set(splits(tmp_path / "data"))
    assert summary.plan.new == 1 and summary.plan.gone == len(gone) == 6 + 1 + 1
    assert {key for key in before if not before[key] & gone} == before.keys() & after.keys()
    indices = [(shard.split, shard.index) for shard in snapshot(tmp_path / "data").shards]
    assert len(set(indices)) == len(indices)
    # The photograph whose box was corrected looks as before.
    (corrected,) = set(splits(tmp_path / "data")) - set(splits(tmp_path / "more-data"))
    looks = {p.looks: p.split for p in snapshot(old).pictures}
    (now,) = [p for p in snapshot(tmp_path / "data").pictures if p.content == corrected]
    assert now.split == looks[now.looks]


def test_a_split_follows_from_looks_alone_and_takes_in_what_looks_alike(
    first: tuple[Path, BuildSummary], write: Callable[..., Path], tmp_path: Path
) -> None:
    """Every photograph is there once more, moved by a pixel: its hash differs, and would often mean another split."""
    alike = GuardSettings(near_duplicate_bits=14)
    config = CONFIG.model_copy(update={"seed": 9, "guard": alike})
    source = write(tmp_path / "source", range(16))
    build_dataset(job(source, tmp_path / "first-work", config=config), tmp_path / "first")
    elsewhere = splits(first[0] / "data")
    assert {content: elsewhere[content] for content in splits(tmp_path / "first")} == splits(tmp_path / "first")
    assert not made_of(tmp_path / "first").keys() & made_of(first[0] / "data").keys(), "another seed, other samples"

    instances = json.loads((source / "instances.json").read_text())
    for image in list(instances["images"]):
        copy = f"copy of {image['id']}.png"
        with Image.open(source / "images" / image["file_name"]) as opened:
            opened.crop((1, 1, 200, 150)).resize((200, 150)).save(source / "images" / copy)
        instances["images"].append({**image, "id": 100 + image["id"], "file_name": copy})
    for thing in list(instances["annotations"]):
        copied = {"id": 1000 + thing["id"], "image_id": 100 + thing["image_id"]}
        instances["annotations"].append({**thing, **copied})
    (source / "instances.json").write_text(json.dumps(instances))
    build_dataset(job(source, tmp_path / "work", tmp_path / "first", config), tmp_path / "data")
    guard_dataset(tmp_path / "data", 0.8, tmp_path / "report", alike, photographs=True)
    pictures = snapshot(tmp_path / "data").pictures
    assert len(pictures) == 32
    assert [p.split for p in pictures[16:]] == [p.split for p in pictures[:16]], "beside its original"
    assert any(p.split != split_of(p.looks, CONFIG.splits) for p in pictures[16:]), "by itself it would stand elsewhere"


def test_what_looks_like_two_splits_is_set_aside() -> None:
    one, other = "00" * 24, "ff03" + "00" * 22
    first = SnapshotPicture(content="1", looks=one, split="train")
    second = SnapshotPicture(content="2", looks=other, split="evaluate")
    sorting = _Sorting(CONFIG, [first, second])
    assert sorting.place("3" * 64, _Look(looks="1f00" + "00" * 22)) is None  # 5 bits from each
    assert [one.reason for one in sorting.aside] == ["alike_across_splits"]
    placed = sorting.place("4" * 64, _Look(looks="ff0f" + "00" * 22))
    assert placed is not None and placed.split == "evaluate"


def test_shares_of_the_splits_are_those_of_the_sizes() -> None:
    sizes = SplitSizes(warm_start=50, train=30, evaluate=20)
    found = [split_of(f"{n:048x}", sizes) for n in range(4000)]
    assert [found.count(s) / 4000 for s in ("warm_start", "train", "evaluate")] == pytest.approx(
        [0.5, 0.3, 0.2], abs=0.03
    )


def test_a_photograph_that_nothing_can_be_asked_about_refuses_nothing(
    first: tuple[Path, BuildSummary], write: Callable[..., Path], tmp_path: Path
) -> None:
    source = write(tmp_path / "source", [*range(30), -7])
    summary = build_dataset(job(source, tmp_path / "work", first[0] / "data"), tmp_path / "data")
    assert (summary.plan.new, len(summary.plan.kept)) == (1, len(first[1].records))
    assert summary.funnel["shard/missing"] == 2
    # And the data set that holds the empty shard can be grown from in turn.
    again = build_dataset(job(source, tmp_path / "work2", tmp_path / "data"), tmp_path / "data2")
    assert len(again.plan.kept) == len(again.records) and again.plan.new == 0
    for name in (MANIFEST, REJECTIONS, SNAPSHOT):
        assert file_sha256(tmp_path / "data2" / name) == file_sha256(tmp_path / "data" / name)


def test_a_previous_data_set_that_was_changed_is_refused(
    first: tuple[Path, BuildSummary], write: Callable[..., Path], tmp_path: Path
) -> None:
    source = write(tmp_path / "source", range(33))
    for spoilt, name in enumerate(("data/warm_start/metadata.parquet", "data/warm_start/00000/*.png")):
        copy = tmp_path / f"copy-{spoilt}"
        shutil.copytree(first[0] / "data", copy)
        next(copy.glob(name)).write_bytes(b"spoilt")
        with pytest.raises(DataError, match="is missing or was changed"):
            build_dataset(job(source, tmp_path / f"work-{spoilt}", copy), tmp_path / f"data-{spoilt}")
    with pytest.raises(DataError, match="holds no manifest"):
        build_dataset(job(source, tmp_path / "work", tmp_path), tmp_path / "data")


def test_too_few_photographs_for_a_split_are_told_with_their_number(write: Callable[..., Path], tmp_path: Path) -> None:
    source = write(tmp_path / "source", range(1))
    with pytest.raises(DataError, match=r"splits\.\w+: [01] of the source's 1 usable photographs"):
        build_dataset(job(source, tmp_path / "work"), tmp_path / "data")


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"source": {"type": "procedural"}}, "growing: the procedural source"),
        ({"effectiveness": {"asked": 5}}, "effectiveness.asked"),
        ({"questions_per_picture": 7}, "questions_per_picture is 7 and shard_size 6"),
    ],
)
def test_what_cannot_grow_is_refused(changed: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        PrepareDataConfig.model_validate(CONFIG.model_dump() | changed)


def test_parquet_grows_too_wherever_the_new_rows_stand(
    photograph: Callable[[int], Image.Image], things: list[Any], tmp_path: Path
) -> None:
    from datasets import Dataset, Features, Sequence, Value
    from datasets import Image as ImageFeature

    def write_rows(file: str, numbers: range) -> None:
        rows = {
            "image": [photograph(number) for number in numbers],
            "objects": [
                {"bbox": [list(box) for _, box in things], "category": [f"{name} {n % 5}" for name, _ in things]}
                for n in numbers
            ],
        }
        struct = {"bbox": Sequence(Sequence(Value("float64"))), "category": Sequence(Value("string"))}
        features = Features({"image": ImageFeature(), "objects": struct})
        (tmp_path / "source").mkdir(exist_ok=True)
        Dataset.from_dict(rows, features=features).to_parquet(str(tmp_path / "source" / file))

    config = CONFIG.model_copy(update={"source": DatasetsSettings(type="datasets", names="category")})
    write_rows("train-b.parquet", range(20))
    before = build_dataset(job(tmp_path / "source", tmp_path / "w1", config=config), tmp_path / "first")
    write_rows("train-a.parquet", range(20, 22))
    after = build_dataset(job(tmp_path / "source", tmp_path / "w2", tmp_path / "first", config), tmp_path / "second")
    assert len(after.plan.kept) == len(before.records) and after.plan.new == 2
    guard_dataset(tmp_path / "second", 0.8, tmp_path / "report", photographs=True)
