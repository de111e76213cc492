"""A tiny editor without training, every kind of editor at tiny size, and samples of the procedural world."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from PIL import Image

from aot_core.attacker.editing import Attacker
from aot_core.attacker.tiny_autoencoder import TinyAutoencoder
from aot_core.attacker.tiny_edit import TinyEditPipeline
from aot_core.attacker.tiny_text import TinyTextEncoder, instruction_tokenizer
from aot_core.attacker.tiny_transformer import TinyEditTransformer
from aot_core.contracts.scene import Query, Sample, Scene, SceneObject
from aot_core.worlds.questions import make_question
from aot_core.worlds.shapes import world
from tests.attacker.editor_kinds import BIG, SETTINGS, Kind


@pytest.fixture
def pipeline() -> TinyEditPipeline:
    torch.manual_seed(0)
    tokenizer = instruction_tokenizer()
    return TinyEditPipeline(
        vae=TinyAutoencoder(fine_channels=8, coarse_channels=8).eval(),
        text_encoder=TinyTextEncoder(len(tokenizer), int(tokenizer.eos_token_id), width=16, feed_forward=16).eval(),
        tokenizer=tokenizer,
        transformer=TinyEditTransformer(width=16, layers=1, heads=2, feed_forward=16, text_width=16).eval(),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
    )


@pytest.fixture
def attacker(pipeline: TinyEditPipeline) -> Attacker:
    made = Attacker(pipeline, steps=4)
    pipeline.transformer.requires_grad_(True)
    return made


def object_at(cell: world.Cell, colour: str, shape: str) -> SceneObject:
    return world.place(np.random.default_rng(0), {"colour": colour, "shape": shape}, cell)


@pytest.fixture
def red_ring_sample() -> tuple[Sample, Image.Image]:
    """A red ring and a blue square; is there a red ring?"""
    objects = (object_at((1, 1), "red", "ring"), object_at((3, 0), "blue", "square"))
    query = Query(kind="existence", target={"colour": "red", "shape": "ring"})
    question = make_question(np.random.default_rng(0), query, "Is there a red ring?", ["yes", "no"], objects)
    assert question is not None
    sample = Sample(
        sample_id="s0",
        split="train",
        scene=Scene(scene_id="scene0", source_id="source0", width=64, height=64, objects=objects),
        question=question,
        image="images/s0.png",
    )
    return sample, world.render(objects, world.Backdrop())


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    root = tmp_path_factory.mktemp("pipelines")

    def folder(name: str) -> Path:
        if not (root / name).exists():
            BIG[name](root / name)
        return root / name

    return folder


@pytest.fixture(scope="session", params=["tiny", *BIG])
def kind(request: pytest.FixtureRequest, folders: Callable[[str], Path]) -> Kind:
    if request.param == "tiny":
        return Kind("tiny", "aot-tiny-edit", None)
    return Kind(request.param, str(folders(request.param)), SETTINGS)


@pytest.fixture(scope="session")
def editor(kind: Kind) -> Attacker:
    """As loaded; tests leave it as it is."""
    return kind.load()


@pytest.fixture(scope="session", params=BIG)
def big(request: pytest.FixtureRequest, folders: Callable[[str], Path]) -> Kind:
    return Kind(request.param, str(folders(request.param)), SETTINGS)
