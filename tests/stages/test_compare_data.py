"""Drift between two data sets, as the stage tells it: none, a redraw, other classes, other light."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.stats import entropy

from aot_core.contracts.artifact import ArtifactRef
from aot_core.contracts.compare_data import CompareDataConfig, CompareDataInputs, CompareDataOutputs
from aot_core.contracts.prepare_data import (
    CocoSettings,
    EffectivenessSettings,
    KindWeights,
    PrepareDataConfig,
    ProceduralSettings,
    SplitSizes,
)
from aot_core.contracts.spec import Place
from aot_core.data.build import BuildJob, build_dataset
from aot_core.data.drift import COLUMNS, Observed, compare, observe
from aot_core.data.guard import GuardBrokenError
from aot_core.engine.identity import stage_spec
from aot_core.engine.runner import execute
from aot_core.store import LocalStore

CONFIG = PrepareDataConfig(
    splits=SplitSizes(warm_start=0, train=300, evaluate=0), effectiveness=EffectivenessSettings(enabled=False), seed=1
)
Compare = Callable[[PrepareDataConfig, PrepareDataConfig], tuple[CompareDataOutputs, Path]]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> LocalStore:
    return LocalStore(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def drift(store: LocalStore, tmp_path_factory: pytest.TempPathFactory) -> Compare:
    """Runs the stage on the data sets of two configs, the reference last, as the flow does."""
    made: dict[str, ArtifactRef] = {}

    def dataset(config: PrepareDataConfig) -> ArtifactRef:
        name = config.model_dump_json()
        if name not in made:
            folder = tmp_path_factory.mktemp("dataset")
            build_dataset(BuildJob(config, None, folder / "work"), folder / "data")
            made[name] = store.put("prepare_data", f"{len(made):064x}", folder / "data")
        return made[name]

    def run(now: PrepareDataConfig, reference: PrepareDataConfig) -> tuple[CompareDataOutputs, Path]:
        inputs = CompareDataInputs(dataset=dataset(now), reference=dataset(reference))
        place = Place(store=str(store.root), device="cpu")
        result = execute(stage_spec("compare_data", CompareDataConfig(pictures=100), inputs, place))
        assert result.record is not None
        return CompareDataOutputs.model_validate(result.record.outputs), store.fetch(result.record.artifact)

    return run


def test_equal_data_has_not_drifted_at_all(drift: Compare) -> None:
    outputs, folder = drift(CONFIG, CONFIG)
    assert outputs.divergence == pytest.approx(dict.fromkeys(COLUMNS, 0.0), abs=1e-9)
    assert outputs.drifted == () and outputs.unseen == {}
    page = (folder / "drift.html").read_text()
    assert "0 of 7 columns have drifted" in page and "http" not in page
    with Image.open(folder / "pictures/drift.png") as picture:
        assert picture.format == "PNG" and picture.width > 1000


def test_another_draw_of_the_same_world_has_not_drifted(drift: Compare) -> None:
    outputs, _ = drift(CONFIG.model_copy(update={"seed": 2}), CONFIG)
    assert outputs.drifted == ()
    assert max(outputs.divergence.values()) > 0


def test_other_questions_and_fuller_pictures_are_told_by_their_columns(drift: Compare) -> None:
    kinds = KindWeights(existence=0, attribute=1, relation=0, count=9)
    outputs, folder = drift(CONFIG.model_copy(update={"seed": 3, "kinds": kinds}), CONFIG)
    assert outputs.drifted == ("kind",)
    page = (folder / "drift.html").read_text()
    assert page.index("kinds of question") < page.index("classes of things"), "the worst stands first"
    crowded = CONFIG.model_copy(update={"seed": 3, "source": ProceduralSettings(objects=(8, 9))})
    assert "contrast" in drift(crowded, CONFIG)[0].drifted


def test_photographs_against_drawn_scenes_drift_finitely(store: LocalStore, tmp_path: Path) -> None:
    """Other classes: not one of them was ever in the reference."""
    rng = np.random.default_rng(0)
    (tmp_path / "source/images").mkdir(parents=True)
    instances: dict[str, list[Any]] = {"images": [], "annotations": []}
    instances["categories"] = [{"id": 0, "name": "dog"}, {"id": 1, "name": "ball"}]
    for number in range(12):
        pixels = rng.integers(0, 40, (150, 200, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"source/images/{number}.png")
        instances["images"].append({"id": number, "file_name": f"{number}.png", "width": 200, "height": 150})
        for place, box in enumerate([(20, 30, 60, 40), (120, 20, 36, 36)]):
            thing = {"id": 2 * number + place, "image_id": number, "category_id": place, "bbox": box}
            instances["annotations"].append(thing)
    (tmp_path / "source/instances.json").write_text(json.dumps(instances))
    photographs = CONFIG.model_copy(
        update={
            "source": CocoSettings(type="coco"),
            "splits": SplitSizes(warm_start=0, train=40, evaluate=0),
            "kinds": KindWeights(existence=1, attribute=1, relation=1, count=0),
        }
    )
    for name, config, source in (("now", photographs, tmp_path / "source"), ("reference", CONFIG, None)):
        build_dataset(BuildJob(config, source, tmp_path / f"{name}-work"), tmp_path / name)
    inputs = CompareDataInputs(
        dataset=store.put("prepare_data", "a" * 64, tmp_path / "now"),
        reference=store.put("prepare_data", "b" * 64, tmp_path / "reference"),
    )
    spec = stage_spec("compare_data", CompareDataConfig(), inputs, Place(store=str(store.root), device="cpu"))
    record = execute(spec).record
    assert record is not None
    outputs = CompareDataOutputs.model_validate(record.outputs)
    assert {"class", "brightness", "pixels"} <= set(outputs.drifted)
    assert set(outputs.unseen["class"]) == {"dog", "ball"}
    assert 3 < outputs.divergence["class"] < 20
    store.delete(record)
    repeated = execute(spec).record
    assert repeated is not None and repeated.artifact == record.artifact, "equal bytes"


def observed(**kinds: int) -> Observed:
    values = {name: ["one"] * 100 for name in COLUMNS}
    return Observed(values | {"kind": [kind for kind, count in kinds.items() for _ in range(count)]}, sources=100)


def test_the_divergence_by_hand() -> None:
    drifts = {d.column: d for d in compare(observed(a=60, b=40), observed(a=50, b=50), 0.1)}
    assert drifts["kind"].divergence == pytest.approx(entropy([0.6, 0.4], [0.5, 0.5]))
    # (2 - 1) / 2 * (1 / 100 + 1 / 100)
    assert drifts["kind"].chance == pytest.approx(0.01) and drifts["kind"].limit == pytest.approx(0.11)
    assert drifts["class"].divergence == 0 and drifts["class"].chance == 0
    # What the reference never had weighs as one observation of 101.
    (new,) = [d for d in compare(observed(c=100), observed(a=50, b=50), 0.1) if d.column == "kind"]
    assert new.divergence == pytest.approx(entropy([1, 0, 0], [1 / 101, 50 / 101, 50 / 101]))
    assert new.drifted and new.unseen == ("c",)


def test_a_measure_that_raises_is_not_told_as_drift() -> None:
    with pytest.raises(GuardBrokenError, match="kind: Threshold must be"):
        compare(observed(a=50, b=50), observed(a=50, b=50), -1.0)


def test_sizes_and_light_fall_into_bins() -> None:
    assert COLUMNS["brightness"].binned([0, 16, 255]) == ["under 16 of 255", "16 to 32 of 255", "240 and more of 255"]
    assert COLUMNS["box"].binned([0.25, 0.5])[0] == "25 to 50 % of the picture"


def test_pictures_are_drawn_by_the_seed(tmp_path: Path) -> None:
    config = CONFIG.model_copy(update={"splits": SplitSizes(warm_start=0, train=30, evaluate=4)})
    build_dataset(BuildJob(config, None, tmp_path / "work"), tmp_path / "data")
    found = observe(tmp_path / "data", 10, seed=1)
    assert (
        found.values == observe(tmp_path / "data", 10, seed=1).values != observe(tmp_path / "data", 10, seed=2).values
    )
    assert len(found.values["brightness"]) == 10 and len(found.values["pixels"]) == 34 == len(found.values["kind"])
