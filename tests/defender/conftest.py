import numpy as np
import pytest

from aot_core.contracts.scene import Question, Sample, Scene
from aot_core.data.dataset import save_image, write_dataset
from aot_core.recipes.defender_lessons import KINDS, corpus
from aot_core.recipes.defender_model import build_model, build_processor, build_tokenizer
from aot_core.worlds.shapes import world
from aot_core.worlds.shapes.questions import ask_world


@pytest.fixture(scope="session")
def untrained():
    """The tiny architecture with random weights, and its processor."""
    tokenizer = build_tokenizer(corpus(np.random.default_rng(0), 600))
    return build_model(tokenizer, seed=0).eval(), build_processor(tokenizer)


@pytest.fixture(scope="session")
def asked() -> list[tuple]:
    """Twelve (image, question), three of every kind."""
    rng = np.random.default_rng(1)
    found: list[tuple] = []
    while len(found) < 12:
        objects = world.random_objects(rng, 3)
        question = ask_world(rng, KINDS[len(found) % 4], objects)
        if question:
            found.append((world.render(objects, world.random_backdrop(rng)), question))
    return found


@pytest.fixture(scope="session")
def dataset(tmp_path_factory, asked):
    """A data set folder: the twelve questions as warm-start samples, each with an 'edited' picture."""
    folder = tmp_path_factory.mktemp("dataset")
    samples = []
    for i, (image, question) in enumerate(asked):
        assert isinstance(question, Question)
        clean = save_image(folder, f"q{i}", image)
        edited = save_image(folder, f"q{i}-edited", image.rotate(90))
        scene = Scene(scene_id=f"q{i}", source_id=f"q{i}", width=64, height=64, objects=())
        samples.append(
            Sample(
                sample_id=f"q{i}",
                split="warm_start",
                scene=scene,
                question=question,
                image=clean,
                edited_image=edited,
            )
        )
    write_dataset(folder, samples)
    return folder
