"""An adapter beside half-precision weights, served by vLLM beside them: the adapted model answers, not its base."""

from pathlib import Path

import pytest
import torch

from aot_core.contracts.benchmarks import BenchmarkSettings
from aot_core.contracts.learning import DefenderModelSettings, LoraSettings
from aot_core.defender.answering import Defender
from aot_core.defender.checkpoints import load_trainable
from aot_core.evaluation.engines.opening import open_engine
from aot_core.evaluation.engines.protocol import Engine, Journal, ask_all
from aot_core.evaluation.engines.transformers_engine import TransformersEngine
from tests.vllm.conftest import QUICK, asks

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(3600)]


@pytest.mark.parametrize("part", ["language_model", "visual"])
def test_the_adapted_model_answers(part: str, tmp_path: Path) -> None:
    settings = DefenderModelSettings(dtype="bfloat16", lora=LoraSettings(rank=4, alpha=8))
    model, processor = load_trainable(None, "aot-tiny-vl", settings, "cpu")
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name and part in name:
                parameter.normal_(std=0.05)
    model.eval()
    questions = asks(60)

    def said(engine: Engine, name: str) -> list[str]:
        with Journal(tmp_path / f"{name}.jsonl", engine.identity) as journal:
            return [str(answers[0]) for answers in ask_all(engine, questions, journal).values()]

    def here(of: object, name: str) -> list[str]:
        greedy = {"max_new_tokens": 32, "temperature": 0.0, "seed": 0}
        return said(TransformersEngine(of, processor, name=name, batch_size=8, **greedy), name)

    base = here(Defender.load("aot-tiny-vl", dtype="bfloat16").model, "base")
    adapted = here(model, "adapted")
    changed = [number for number in range(60) if base[number] != adapted[number]]
    assert len(changed) >= 10, "the adapter changes what is answered"

    served = BenchmarkSettings(vllm=QUICK, max_new_tokens=32)
    with open_engine(served, Defender(model, processor), "weights", 0.0, 0, tmp_path) as engine:
        theirs = said(engine, "vllm")
    # In half precision two engines differ where two answers are nearly as likely.
    assert sum(one == other for one, other in zip(theirs, adapted, strict=True)) >= 54
    assert sum(theirs[number] == adapted[number] for number in changed) > 0.8 * len(changed)
