"""The engine on a real, small model: batches, samples, several pictures, resuming."""

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from aot_core.contracts.protocols import is_cut_off
from aot_core.evaluation.engines.protocol import Ask, Journal, ask_all
from aot_core.evaluation.engines.transformers_engine import TransformersEngine
from aot_core.recipes.defender_model import build_model, build_processor, build_tokenizer


@pytest.fixture(scope="module")
def make() -> Callable[[float], TransformersEngine]:
    tokenizer = build_tokenizer([f"Is there a ring?\n{x}. yes\nAnswer with \\boxed{{{x}}}." for x in "ABCDEFGH"])
    model, processor = build_model(tokenizer, seed=0).eval(), build_processor(tokenizer)
    return lambda temperature: TransformersEngine(
        model, processor, name="tiny", batch_size=3, max_new_tokens=5, temperature=temperature, seed=1
    )


def questions(count: int, pictures: int = 1) -> list[Ask]:
    def opened(shade: int) -> Callable[[], list[Image.Image]]:
        return lambda: [Image.effect_noise((64, 64), 40 + shade).convert("RGB")] * pictures

    return [Ask(f"q{i}", f"Is there a ring? {'A. yes ' * i}", opened(i), 2) for i in range(count)]


class Counting(Journal):
    recorded = 0

    def record(self, key: str, sample: int, text: str) -> None:
        type(self).recorded += 1
        super().record(key, sample, text)


def test_what_was_interrupted_ends_the_same(make: Callable[[float], TransformersEngine], tmp_path: Path) -> None:
    engine = make(1.5)
    asks = [Ask(a.key, a.prompt, lambda: [Image.new("RGB", (64, 64), (90, 30, 30))], 2) for a in questions(7)]
    with Journal(tmp_path / "whole.jsonl", engine.identity) as journal:
        whole = ask_all(engine, asks, journal)
        journal.export(tmp_path / "whole.txt")
    assert any(len(set(texts)) > 1 for texts in whole.values()), "samples differ"
    lines = (tmp_path / "whole.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "cut.jsonl").write_text("".join(lines[: 1 + 6 + 3]) + lines[11][:4])  # one batch of two and a half
    with Counting(tmp_path / "cut.jsonl", engine.identity) as journal:
        assert ask_all(engine, asks, journal) == whole
        journal.export(tmp_path / "cut.txt")
    assert Counting.recorded == 6 + 2, "the first batch is not asked again"
    assert (tmp_path / "cut.txt").read_bytes() == (tmp_path / "whole.txt").read_bytes()


def test_greedy_answers_are_all_the_same(make: Callable[[float], TransformersEngine], tmp_path: Path) -> None:
    engine = make(0.0)
    with Journal(tmp_path / "a.jsonl", engine.identity) as journal:
        answers = ask_all(engine, questions(2, pictures=2), journal)
    assert all(len(texts) == 2 and len(set(texts)) == 1 for texts in answers.values())
    # Five tokens of an untrained model: the limit ends them.
    assert all(is_cut_off(text) for texts in answers.values() for text in texts)
