from pathlib import Path

import pytest
import torch
from PIL import Image

from aot_core.attacker.tiny_edit import TinyEditPipeline, composite
from aot_core.attacker.tiny_text import instruction_tokenizer, tokenize
from aot_core.attacker.tiny_transformer import pack, unpack
from aot_core.worlds.shapes import world

SCENE = world.render((), world.Backdrop())


def test_packing_puts_a_worlds_cell_into_a_token_and_back():
    latents = torch.arange(2 * 3 * 8 * 8.0).reshape(2, 3, 8, 8)
    tokens = pack(latents)
    assert tokens.shape == (2, 16, 12)
    assert set(tokens[0, 5].tolist()) == set(latents[0, :, 2:4, 2:4].flatten().tolist())
    assert torch.equal(unpack(tokens, 8, 8), latents)


def test_tokens_are_the_words_that_matter():
    tokenizer = instruction_tokenizer()
    ids, mask = tokenize(
        tokenizer, ["Add a red ring at row 2, column 3. Question: How many crosses are there?", "Add an object."]
    )
    words = tokenizer.convert_ids_to_tokens(ids[0].tolist())
    assert words == ["add", "red", "ring", "row2", "column3", ".", "question", "how", "many", "crosses", "there", "."]
    assert mask[1].sum() == 3


def test_an_instruction_without_end_is_refused():
    with pytest.raises(ValueError, match="fewer edits"):
        tokenize(instruction_tokenizer(), ["Add an object at row 1, column 1. " * 20])


def test_saved_and_loaded_pipelines_edit_alike(pipeline: TinyEditPipeline, tmp_path: Path):
    pipeline.set_progress_bar_config(disable=True)
    noise = torch.randn(1, 8, 8, 8)
    told = "Add a red ring at row 1, column 1."
    before = pipeline(SCENE, told, 3, latents=noise, output_type="latent").images
    pipeline.save_pretrained(tmp_path, safe_serialization=True)
    assert not [path for path in tmp_path.rglob("*") if path.suffix in (".bin", ".pt", ".pkl")]
    loaded = TinyEditPipeline.from_pretrained(tmp_path, local_files_only=True)
    loaded.set_progress_bar_config(disable=True)
    after = loaded(SCENE, told, 3, latents=noise, output_type="latent").images
    assert torch.equal(torch.as_tensor(before), torch.as_tensor(after))


def test_what_the_flow_left_alone_keeps_the_sources_pixels():
    pixels, decoded = torch.zeros(1, 3, 64, 64), torch.ones(1, 3, 64, 64)
    source = torch.zeros(1, 8, 8, 8)
    latents = source.clone()
    latents[:, :, 2:4, 4:6] = 1.0  # the cell in row 1, column 2
    mixed = composite(pixels, decoded, source, latents)
    assert mixed[:, :, 16:32, 32:48].min() == 1
    assert mixed.sum() == 3 * 16 * 16


def test_wrong_sizes_and_counts_are_named(pipeline: TinyEditPipeline):
    with pytest.raises(ValueError, match=r"32x32.*64x64"):
        pipeline.encode([Image.new("RGB", (32, 32))], ["Add an object at row 1, column 1."])
    with pytest.raises(ValueError, match="1 images but 2 instructions"):
        pipeline.encode([SCENE], ["a", "b"])
    with pytest.raises(ValueError, match="output_type"):
        pipeline(SCENE, "Add an object at row 1, column 1.", output_type="jpeg")


def test_padding_does_not_change_an_edit(pipeline: TinyEditPipeline):
    long = "Add a red ring at row 1, column 1. Remove the blue square at row 2, column 2."
    latents, time = torch.randn(2, 8, 8, 8), torch.tensor([0.5, 0.5])
    both = pipeline.encode([SCENE, SCENE], ["Add an object at row 1, column 1.", long])
    alone = pipeline.encode([SCENE], ["Add an object at row 1, column 1."])
    with torch.no_grad():
        together = pipeline.velocity(latents, time, both)[:1]
        single = pipeline.velocity(latents[:1], time[:1], alone)
    assert torch.allclose(together, single, atol=1e-4)
