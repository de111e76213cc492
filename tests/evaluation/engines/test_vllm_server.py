"""What is refused before vLLM is started; what it does then is tested on vLLM itself (`tests/vllm`)."""

from pathlib import Path

import pytest

from aot_core.contracts.benchmarks import BenchmarkSettings, EndpointSettings, VllmSettings
from aot_core.contracts.loading import load_campaign
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
