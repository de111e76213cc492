"""The Attacker's stages as configs/paper.toml sets them, on photographs: all but the sizes, which are tiny.

A Qwen-Image-Edit of tiny config and random weights, in bfloat16, with LoRA, gradient checkpointing and offload, against
the shipped Defender.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from tiny_pipelines import save_qwen

from aot_core.contracts.artifact import ArtifactRef, ExternalRef
from aot_core.contracts.attacker_round import AttackerRoundInputs
from aot_core.contracts.campaign import CampaignConfig
from aot_core.contracts.curate import CurateInputs
from aot_core.contracts.loading import load_campaign
from aot_core.contracts.scene import Box, Edit, Query, Question, Sample, Scene, SceneObject
from aot_core.contracts.warm_start_attacker import WarmStartAttackerInputs
from aot_core.data.dataset import read_samples, save_image, write_dataset
from aot_core.engine.context import StageContext
from aot_core.stages.attacker_round import run_attacker_round
from aot_core.stages.curate import run_curate
from aot_core.stages.warm_start_attacker import run_warm_start_attacker
from aot_core.store import LocalStore

PAPER = Path(__file__).parents[2] / "configs" / "paper.toml"
DEFENDER = ExternalRef(name="aot-tiny-vl")
SMALL = (
    *("warm_start_attacker.updates=2", "warm_start_attacker.batch_size=2", "warm_start_attacker.pairs=4"),
    *("warm_start_attacker.gradient_accumulation=2", "warm_start_attacker.editor.resolution=64"),
    *("attacker_round.updates=2", "attacker_round.scenes=1", "attacker_round.group_size=3", "attacker_round.probe=2"),
    *("attacker_round.editor.resolution=64", "attacker_round.sampling.steps=3", "attacker_round.sampling.sde_steps=2"),
    # An editor of random weights spares nothing and misleads nobody: let it pass, and look at the margin.
    *("attacker_round.reward.validity.min_ssim=0.0", "attacker_round.reward.validity.max_outside=1.0"),
    # In bfloat16 the tiny Defender's letters tie.
    *("attacker_round.reward.dense=1.0", "attacker_round.defender_dtype=float32"),
    *("curate.validity.min_ssim=0.0", "curate.validity.max_outside=1.0"),
    *("curate.scenes=6", "curate.minimum=2", "curate.steps=2", "curate.gallery_rows=1"),
)


@pytest.fixture(scope="module")
def campaign() -> CampaignConfig:
    return load_campaign(PAPER, list(SMALL))


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> ExternalRef:
    folder = tmp_path_factory.mktemp("base") / "editor"
    save_qwen(folder, plus=False)
    return ExternalRef(name=str(folder))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> LocalStore:
    return LocalStore(tmp_path_factory.mktemp("store"))


def photograph(number: int, folder: Path) -> Sample:
    """96 x 72 pixels of soft noise with a thing at the upper left, and one at the lower right."""
    rng = np.random.default_rng(number)
    size = (96, 72)
    image = Image.fromarray(rng.integers(60, 180, (9, 12, 3), dtype=np.uint8)).resize(size, Image.Resampling.BICUBIC)
    edited = image.copy()
    edited.paste(tuple(int(value) for value in rng.integers(0, 256, 3)), (40, 30, 60, 44))
    thing, other = Box(x=4, y=4, width=24, height=18), Box(x=70, y=52, width=20, height=16)
    for box in (thing, other):
        corners = (int(box.x), int(box.y), int(box.right), int(box.bottom))
        image.paste(tuple(int(value) for value in rng.integers(0, 256, 3)), corners)
    objects = (SceneObject(box=thing, attributes={"name": "dog"}), SceneObject(box=other, attributes={"name": "cup"}))
    pair = number < 4
    edit = Edit(
        kind="add",
        instruction="Add a kite in the centre.",
        family="semantic",
        region=Box(x=32, y=24, width=32, height=24),
    )
    return Sample(
        sample_id=f"s{number}",
        split="warm_start" if pair else "train",
        scene=Scene(scene_id=f"scene{number}", source_id=f"source{number}", width=96, height=72, objects=objects),
        question=Question(
            query=Query(kind="existence", target={"name": "dog"}),
            text="Is there a dog in the picture?",
            options=("yes", "no") if number % 2 else ("no", "yes"),
            answer="A" if number % 2 else "B",
            protected=(thing,),
        ),
        image=save_image(folder, f"{number}", image),
        edits=(edit,) if pair else (),
        edited_image=save_image(folder, f"{number}-edited", edited) if pair else None,
    )


@pytest.fixture(scope="module")
def dataset(store: LocalStore, tmp_path_factory: pytest.TempPathFactory) -> ArtifactRef:
    folder = tmp_path_factory.mktemp("photographs")
    write_dataset(folder, [photograph(number, folder) for number in range(28)])
    return store.put("prepare_data", "0" * 64, folder)


@pytest.fixture(scope="module")
def defender(store: LocalStore, tmp_path_factory: pytest.TempPathFactory) -> ArtifactRef:
    import shutil

    from aot_core.base_models.names import SHIPPED

    folder = tmp_path_factory.mktemp("defender")
    shutil.copytree(SHIPPED / DEFENDER.name, folder / "model")
    return store.put("warm_start_defender", "1" * 64, folder)


def context(store: LocalStore, folder: Path) -> StageContext:
    for name in ("output", "scratch"):
        (folder / name).mkdir(parents=True)
    return StageContext(store, folder / "output", folder / "scratch")


def adapter(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "adapter" / "adapter_model.safetensors")


@pytest.mark.slow
def test_warm_start_round_and_curation_of_a_big_editor(
    campaign: CampaignConfig,
    base: ExternalRef,
    store: LocalStore,
    dataset: ArtifactRef,
    defender: ArtifactRef,
    tmp_path: Path,
) -> None:
    warm = context(store, tmp_path / "warm")
    run_warm_start_attacker(campaign.warm_start_attacker, WarmStartAttackerInputs(dataset=dataset, base=base), warm)
    assert [path.name for path in warm.output.iterdir()] == ["adapter"]
    kept = json.loads((warm.output / "adapter" / "editor.json").read_text())
    assert (kept["dtype"], kept["settings"]["resolution"], kept["settings"]["offload"]) == ("bfloat16", 64, True)
    started = store.put("warm_start_attacker", "2" * 64, warm.output)

    played = context(store, tmp_path / "round")
    given = {"dataset": dataset, "defender": defender, "attacker_base": base, "defender_base": DEFENDER}
    outputs = run_attacker_round(campaign.attacker_round, AttackerRoundInputs(attacker=started, **given), played)
    assert outputs.edits == 2 * 2 * 3
    assert outputs.kl > 0
    before, after = adapter(warm.output), adapter(played.output)
    assert before.keys() == after.keys()  # the reference's adapter is not saved
    assert any(not torch.equal(before[name], after[name]) for name in before)
    assert all(value.dtype == torch.float32 for value in after.values())

    curated = context(store, tmp_path / "curate")
    attacker = store.put("attacker_round", "3" * 64, played.output)
    funnel = run_curate(campaign.curate, CurateInputs(attacker=attacker, **given), curated)
    assert funnel.kept >= 1
    for sample in read_samples(curated.output, "train"):
        assert Image.open(curated.output / str(sample.edited_image)).size == (96, 72)
        assert all(edit.region.overlap(box) == 0 for edit in sample.edits for box in sample.question.protected)
