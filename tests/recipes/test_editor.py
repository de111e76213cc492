"""The recipe end to end, on a few steps: what it learns is measured elsewhere."""

from pathlib import Path

import numpy as np

from aot_core.contracts.scene import Query
from aot_core.recipes.editor import Recipe, pretrain
from aot_core.recipes.editor_autoencoder import AutoencoderRecipe
from aot_core.recipes.editor_pairs import PairRecipe, changed_cells, distractor, draw_pair, tell
from aot_core.recipes.editor_transformer import TransformerRecipe
from aot_core.tracking.protocol import NullTracker
from aot_core.worlds.instructions import read_instruction

RECIPE = Recipe(
    autoencoder=AutoencoderRecipe(steps=2, batch=4),
    transformer=TransformerRecipe(steps=2, batch=8, pool=64),
    questions=TransformerRecipe(steps=2, batch=8, pool=64, pairs=PairRecipe(semantic_share=0.7)),
    measured_pairs=8,
)


def test_the_recipe_makes_a_described_editor_and_goes_on_where_it_stopped(tmp_path: Path):
    skills = pretrain(tmp_path / "editor", RECIPE, 0, NullTracker())
    card = (tmp_path / "editor" / "README.md").read_text()
    assert skills.pairs == 8
    assert "add open" in card
    assert card.count(".safetensors") == 3
    weights = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.safetensors")}
    assert pretrain(tmp_path / "editor", RECIPE, 0, NullTracker()) == skills
    assert {path: path.stat().st_mtime_ns for path in weights} == weights


def test_pairs_differ_in_the_changed_cells_alone():
    rng = np.random.default_rng(0)
    for _ in range(30):
        pair = draw_pair(rng, PairRecipe())
        before, after = (np.asarray(image, dtype=int) for image in pair.images())
        differs = np.abs(after - before).max(-1).reshape(4, 16, 4, 16).max((1, 3)).ravel() > 0
        assert np.array_equal(differs, changed_cells(pair))


def test_a_pair_backwards_undoes_its_edits():
    rng = np.random.default_rng(1)
    recipe = PairRecipe(open_share=0.0, question_share=0.0)
    for _ in range(30):
        pair = draw_pair(rng, recipe)
        forwards = {told.where: told for told in read_instruction(tell(rng, pair, recipe))}
        backwards = {told.where: told for told in read_instruction(tell(rng, pair, recipe, backwards=True))}
        for cell, told in forwards.items():
            assert (told.removed, told.added) == (backwards[cell].added, backwards[cell].removed)


def test_a_distractor_is_near_to_what_is_asked_for_and_is_not_it():
    rng = np.random.default_rng(2)
    asked = Query(
        kind="relation", target={"colour": "red", "shape": "ring"}, reference={"colour": "red", "shape": "cross"}
    )
    for _ in range(50):
        painted = distractor(rng, asked)
        assert (painted["colour"] == "red") != (painted["shape"] == "ring")
        assert painted != asked.reference
    counted = Query(kind="count", target={"colour": "red"})
    assert all(distractor(rng, counted)["colour"] != "red" for _ in range(50))
