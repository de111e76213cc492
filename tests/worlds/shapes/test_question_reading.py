"""What is asked about drawn scenes can be read back from its words."""

import numpy as np

from aot_core.worlds.shapes import world
from aot_core.worlds.shapes.question_reading import read_question
from aot_core.worlds.shapes.questions import ask_world


def test_every_question_of_the_world_is_read_back() -> None:
    asked = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        objects = world.random_objects(rng, 4)
        for kind in ("existence", "attribute", "relation", "count"):
            question = ask_world(rng, kind, objects)
            if question is not None:
                assert read_question(question.text) == question.query
                asked += 1
    assert asked > 400
    assert read_question("Is there a red dog?") is None
