"""What is refused before vLLM is started; what it does then is tested on vLLM itself (`tests/vllm`)."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from aot_core.contracts.benchmarks import BenchmarkSettings, EndpointSettings, VllmSettings
from aot_core.contracts.learning import DefenderModelSettings, LoraSettings
from aot_core.contracts.loading import load_campaign
from aot_core.contracts.scene import Query, Question
from aot_core.defender.answering import Defender
from aot_core.defender.checkpoints import load_trainable
from aot_core.evaluation.engines.opening import open_engine
from aot_core.evaluation.engines.protocol import EngineError
from aot_core.evaluation.engines.vllm_server import vllm_server

CONFIGS = Path(__file__).parents[3] / "configs"


def test_a_machine_without_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with (
        pytest.raises(EngineError, match="no `vllm` on this machine"),
        vllm_server(tmp_path, VllmSettings(), tmp_path / "log", "float32"),
    ):
        pass


def test_a_campaign_does_not_ask_one_endpoint_for_every_defender() -> None:
    where = '{url = "http://127.0.0.1:8000/v1", model = "m"}'
    with pytest.raises(ValueError, match="one and the same model"):
        load_campaign(CONFIGS / "smoke.toml", [f"evaluate.benchmarks.endpoint={where}"])
    with pytest.raises(ValueError, match="both set"):
        BenchmarkSettings(endpoint=EndpointSettings(url="http://x/v1", model="m"), vllm=VllmSettings())
    served = load_campaign(CONFIGS / "smoke.toml", ['evaluate.benchmarks.vllm={arguments=["--max-model-len", "512"]}'])
    assert served.evaluate.benchmarks.vllm is not None


PROGRAM = """#!/bin/sh
printf '%s\\n' "$@" > {told}
exit 1
"""
"""In place of vLLM: writes down how it was called. vLLM itself is asked in `tests/vllm`."""


@pytest.mark.parametrize("part", ["language_model", "visual"])
def test_an_adapter_beside_half_precision_is_served_beside_it_or_merged_in_float32(
    part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """vLLM leaves out what an adapter changes of the vision tower, without a word: such a one is merged."""
    settings = DefenderModelSettings(dtype="bfloat16", lora=LoraSettings(rank=12, alpha=24))
    model, processor = load_trainable(None, "aot-tiny-vl", settings, "cpu")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name and part in name:
                parameter.add_(0.002)
    picture = Image.effect_noise((64, 64), 70).convert("RGB")
    query = Query(kind="existence", target={})
    question = Question(query=query, text="Is there a red ring?", options=("yes", "no"), answer="A")
    trained = Defender(model, processor).letter_logprobs([picture], [question])

    program, told = tmp_path / "vllm", tmp_path / "told"
    program.write_text(PROGRAM.format(told=told))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    benchmark = BenchmarkSettings(vllm=VllmSettings(arguments=("--max-model-len", "512")))
    with (
        pytest.raises(EngineError, match="vllm serve ended with code 1"),
        open_engine(benchmark, Defender(model, processor), "weights", 0.0, 0, tmp_path),
    ):
        pass
    command = told.read_text().splitlines()
    options = dict(zip(command[2::2], command[3::2], strict=False))
    folder, name = command[1], options["--served-model-name"]
    assert command[-2:] == ["--max-model-len", "512"]
    if part == "visual":
        assert options["--dtype"] == "float32" and "--enable-lora" not in command
        served = Defender.load(folder)
        assert served.letter_logprobs([picture], [question])[0] == pytest.approx(trained[0], abs=0.05)
        return
    after = command[command.index("--enable-lora") + 1 :]
    assert options["--dtype"] == "bfloat16" and after[:2] == ["--max-lora-rank", "16"]
    called, _, adapter = after[3].partition("=")
    assert after[2] == "--lora-modules" and name == f"{called}-base"
    config = json.loads((Path(adapter) / "adapter_config.json").read_text())
    assert config["r"] == 12
    served = Defender.load(folder, Path(adapter), dtype="bfloat16")
    assert served.letter_logprobs([picture], [question]) == trained, "to the bit"
    assert Defender.load(folder, dtype="bfloat16").letter_logprobs([picture], [question]) != trained
