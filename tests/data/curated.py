"""Curated data sets as small as they go: drawn scenes, each edited, with what a Defender made of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from aot_core.contracts.artifact import ArtifactRef
from aot_core.contracts.bank import BankConfig, BankInputs, BankOutputs
from aot_core.contracts.scene import Edit, Sample, Scene
from aot_core.data.dataset import save_image, write_dataset
from aot_core.engine.context import StageContext
from aot_core.stages.bank import run_bank
from aot_core.store import LocalStore
from aot_core.worlds.likeness import perceptual_hash
from aot_core.worlds.questions import ask_world
from aot_core.worlds.shapes import world


@dataclass(frozen=True)
class Made:
    """An edit to be written: of which scene, which of its edits, and shares of right answers."""

    scene: int
    edit: int = 0
    """0 to 3."""
    clean: float = 1.0
    edited: float = 0.0
    shade: int = 0
    """Grey values that are added to the edited picture: it looks the same, and its bytes are others."""


def write_curated(folder: Path, edits: Sequence[Made]) -> None:
    """As `curate` writes it."""
    samples = []
    for index, made in enumerate(edits):
        rng = np.random.default_rng(made.scene)
        objects = world.random_objects(rng, 7)
        question = ask_world(rng, "existence", objects)
        assert question is not None
        backdrop, name = world.random_backdrop(rng), f"{index:05d}"
        clean, edited = world.render(objects[:3], backdrop), world.render(objects[: 4 + made.edit], backdrop)
        samples.append(
            Sample(
                sample_id=f"scene-{made.scene}-edit-{name}",
                split="train",
                scene=Scene(
                    scene_id=f"scene-{made.scene}",
                    source_id=f"source-{made.scene}",
                    width=64,
                    height=64,
                    objects=objects[:3],
                    source_hash=perceptual_hash(clean),
                ),
                question=question,
                image=save_image(folder, f"{name}-clean", clean),
                edited_image=save_image(folder, f"{name}-edited", Image.eval(edited, made.shade.__add__)),
                edits=tuple(
                    Edit(kind="add", instruction=f"Add a {thing.name}.", family="semantic", region=thing.box)
                    for thing in objects[3 : 4 + made.edit]
                ),
                edited_objects=objects[: 4 + made.edit],
                clean_correct=made.clean,
                edited_correct=made.edited,
            )
        )
    write_dataset(folder, samples)


def put_curated(store: LocalStore, folder: Path, edits: Sequence[Made]) -> ArtifactRef:
    """In the store, under a key of its own."""
    write_curated(folder, edits)
    return store.put("curate", f"{len(list((store.root / 'curate').glob('*'))):064x}", folder)


def put_bank(
    store: LocalStore,
    folder: Path,
    curated: Sequence[ArtifactRef],
    config: BankConfig,
    edition: str = "weekly/1",
    bank: ArtifactRef | None = None,
    attackers: Sequence[ArtifactRef] = (),
) -> tuple[ArtifactRef, BankOutputs]:
    """Run the stage and store what it writes."""
    (folder / "output").mkdir(parents=True)
    inputs = BankInputs(bank=bank, curated=tuple(curated), attackers=tuple(attackers), edition=edition)
    outputs = run_bank(config, inputs, StageContext(store, folder / "output", folder / "scratch"))
    key = f"{len(list((store.root / 'bank').glob('*'))):064x}"
    return store.put("bank", key, folder / "output"), outputs
