"""A small run of the whole pipeline: what comes out is what the config asked for, the same every time."""

from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import ValidationError

from aot_core.contracts.prepare_data import EffectivenessSettings, PrepareDataConfig, SplitSizes
from aot_core.contracts.scene import Sample
from aot_core.data.build import BuildSummary
from aot_core.data.dataset import load_image, read_samples
from aot_core.worlds.images import DataError
from aot_core.worlds.opening import open_source
from aot_core.worlds.similarity import localized_ssim

Build = Callable[..., tuple[list[Sample], BuildSummary]]
CONFIG = PrepareDataConfig(
    splits=SplitSizes(warm_start=60, train=40, evaluate=20), effectiveness=EffectivenessSettings(enabled=False)
)
PHOTOS = PrepareDataConfig.model_validate(
    {
        "source": {"type": "coco"},
        "splits": {"warm_start": 10, "train": 0, "evaluate": 4},
        "implantation": {"edits": {"add": 1, "remove": 0, "replace": 0}, "evaluated": ["semantic", "irrelevant"]},
        "effectiveness": {"enabled": False},
    }
)


@pytest.fixture(scope="module")
def made(build: Build, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Sample]]:
    folder = tmp_path_factory.mktemp("made")
    return folder, build(CONFIG, folder)[0]


def test_every_split_is_as_asked(made: tuple[Path, list[Sample]]) -> None:
    folder, samples = made
    assert read_samples(folder) == samples
    assert Counter(s.split for s in samples) == {"warm_start": 60, "train": 40, "evaluate": 20 * 4}
    assert all(s.edits and s.edited_image for s in samples if s.split == "warm_start")
    assert not any(s.edits for s in samples if s.split == "train")
    families = defaultdict(set)
    for sample in samples:
        if sample.split == "evaluate":
            families[sample.scene.scene_id].add(sample.edits[0].family if sample.edits else "clean")
            assert len(sample.edits) in (0, 3)
    assert len(families) == 20
    assert all(found == {"clean", "semantic", "irrelevant", "unseen"} for found in families.values())
    assert all(e.family != "unseen" for s in samples for e in s.edits if s.split == "warm_start")


def test_clean_scenes_are_uncrowded_and_no_source_stands_in_two_splits(made: tuple[Path, list[Sample]]) -> None:
    assert {len(s.scene.objects) for s in made[1]} == {2, 3, 4}
    splits = defaultdict(set)
    for sample in made[1]:
        splits[sample.scene.source_id].add(sample.split)
    assert all(len(found) == 1 for found in splits.values())


def test_the_stored_ssim_is_that_of_the_stored_images(made: tuple[Path, list[Sample]]) -> None:
    folder, samples = made
    for sample in [s for s in samples if s.edited_image][:8]:
        clean, edited = load_image(folder, sample.image), load_image(folder, str(sample.edited_image))
        assert sample.ssim == pytest.approx(localized_ssim(clean, edited, sample.question.protected), abs=1e-6)


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(
    made: tuple[Path, list[Sample]], build: Build, tmp_path: Path
) -> None:
    build(CONFIG, tmp_path / "again")
    build(CONFIG.model_copy(update={"seed": 1}), tmp_path / "other")
    first, again, changed = (
        {path.relative_to(root): path.read_bytes() for path in root.rglob("*") if path.is_file()}
        for root in (made[0], tmp_path / "again", tmp_path / "other")
    )
    assert first == again
    assert first != changed


def test_photographs_become_pairs(coco: Callable[..., Path], build: Build, tmp_path: Path) -> None:
    folder = coco()
    samples, _ = build(PHOTOS, tmp_path / "out", folder)
    assert Counter((s.split, bool(s.edits)) for s in samples) == {
        ("warm_start", True): 10,
        ("evaluate", False): 4,
        ("evaluate", True): 8,
    }
    sources = defaultdict(set)
    for sample in samples:
        # A thing's name ends in its photograph's number: it and its distractors are all of one split.
        names = [e.added.attributes["name"] for e in sample.edits if e.added]
        sources[sample.split] |= {int(name.split()[-1]) for name in names} | {
            int(sample.scene.source_id.split("-")[-1])
        }
    assert sources["warm_start"].isdisjoint(sources["evaluate"])


def test_spoilt_photographs_stop_the_run_without_a_data_set(
    coco: Callable[..., Path], build: Build, tmp_path: Path
) -> None:
    folder = coco()
    for path in (folder / "images").iterdir():
        path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(DataError, match="truncated"):
        build(PHOTOS, tmp_path / "out", folder)
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_a_coco_source_needs_its_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="source_folder: a coco source needs a folder"):
        open_source(PHOTOS, None, tmp_path)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"source": {"type": "coco"}}, 'photographs have no "unseen" family'),
        ({"source": {"type": "voc"}}, "'procedural', 'coco', 'datasets'"),
        ({"source": {"type": "procedural", "objects": [4, 2]}}, "least <= most"),
        ({"splits": {"warm_start": 0, "train": 0, "evaluate": 0}}, "give at least one split a size"),
        ({"kinds": {"existence": 0, "attribute": 0, "relation": 0, "count": 0}}, "at least one kind a weight"),
        ({"implantation": {"families": ["unseen"]}}, "semantic"),
        ({"implantation": {"distractor": [1, 3]}}, "distractor\n"),
        ({"implantation": {"distractors": [0, 3]}}, "1 <= least"),
        ({"extension": {"scale": [0.5, 2]}}, "within 1..4"),
        ({"extension": {"pasted": [2, 1]}}, "within 0..7"),
    ],
)
def test_bad_configs_name_the_field(config: dict, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        PrepareDataConfig.model_validate(config)
