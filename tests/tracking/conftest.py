"""A small Defender on disk for the registry's tests."""

from pathlib import Path

import pytest

from aot_core.recipes.defender_model import build_model, build_processor, build_tokenizer


@pytest.fixture(scope="session")
def untrained_defender(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An artifact folder with `model/`: a real Qwen2.5-VL of the tiny size with random weights."""
    folder = tmp_path_factory.mktemp("defender") / "model"
    corpus = [f"Is there a red ring?\n{letter}. yes\nAnswer with \\boxed{{{letter}}}." for letter in "ABCDEFGH"]
    tokenizer = build_tokenizer(corpus)
    build_model(tokenizer, seed=0).save_pretrained(folder)
    build_processor(tokenizer).save_pretrained(folder)
    return folder.parent
