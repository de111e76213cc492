"""A benchmark's picture among the training pictures, in another size and encoding."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from aot_core.contracts.scene import Box, Query, Question, Sample, Scene, SceneObject, Split
from aot_core.data.dataset import save_image, write_dataset
from aot_core.evaluation.benchmarks.contamination import count_seen, training_sources
from aot_core.evaluation.benchmarks.readers import read_benchmark
from aot_core.evaluation.stops import benchmarks_seen
from aot_core.worlds.likeness import perceptual_hash
from tests.evaluation.benchmarks.conftest import write_vstar


def photograph(seed: int) -> Image.Image:
    """Large blobs of colour: what is left of a photograph when it is scaled."""
    small = np.random.default_rng(seed).integers(0, 255, (9, 9, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((360, 240), Image.Resampling.BICUBIC)


def dataset(folder: Path, splits: list[Split]) -> Path:
    """A photograph a split, its source hashed as the sources do."""
    samples: list[Sample] = []
    for seed, split in enumerate(splits):
        image = photograph(seed)
        thing = SceneObject(attributes={"name": "dog"}, box=Box(x=4, y=4, width=90, height=90))
        query = Query(kind="existence", target={"name": "dog"})
        question = Question(query=query, text="Is there a dog?", options=("yes", "no"), answer="A")
        scene = Scene(
            scene_id=f"s{seed}", source_id=f"s{seed}", width=360, height=240, objects=(thing,),
            source_hash=perceptual_hash(image),
        )  # fmt: skip
        name = save_image(folder, f"{seed}", image.resize((180, 120)))
        samples.append(Sample(sample_id=f"{seed}", split=split, scene=scene, question=question, image=name))
    write_dataset(folder, samples)
    return folder


def test_a_benchmarks_picture_among_the_training_pictures(tmp_path: Path) -> None:
    trained = training_sources(dataset(tmp_path / "data", ["train", "warm_start", "evaluate"]))
    assert trained == {perceptual_hash(photograph(seed)) for seed in (0, 1)}
    write_vstar(tmp_path / "vstar_bench")
    questions = read_benchmark("vstar", tmp_path, tmp_path / "cache")
    assert count_seen(questions, trained) == 0
    # The same photographs, smaller and as JPEG: one that was trained on, and one that is only tested on.
    for number, seed in enumerate((0, 2)):
        photograph(seed).resize((240, 160)).save(tmp_path / "vstar_bench" / "direct_attributes" / f"sa_{number}.jpg")
    questions = read_benchmark("vstar", tmp_path, tmp_path / "cache")
    assert count_seen(questions, trained) == 1 and count_seen(questions, set()) == 0


@pytest.mark.parametrize(("seen", "stopped"), [(0.0, False), (2.0, True)])
def test_it_stops_a_promotion(seen: float, stopped: bool) -> None:
    stop = benchmarks_seen({"benchmarks/pope/seen_in_training": seen, "strict/clean": 0.9})
    assert stop.stopped is stopped and stop.told.endswith("2 of pope" if stopped else "none")
