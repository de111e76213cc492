"""vLLM as a stage starts it. vLLM is not here: a program of its name stands in, a real process on a real port."""

import json
import sys
from pathlib import Path

import httpx
import pytest

from aot_core.contracts.benchmarks import BenchmarkSettings, EndpointSettings, VllmSettings
from aot_core.contracts.loading import load_campaign
from aot_core.defender.answering import Defender
from aot_core.evaluation.benchmarks.asking import run_benchmark
from aot_core.evaluation.benchmarks.readers import read_benchmark
from aot_core.evaluation.engines.opening import open_engine
from aot_core.evaluation.engines.protocol import EngineError, Journal
from aot_core.evaluation.engines.vllm_server import vllm_server
from aot_core.recipes.defender_model import build_model, build_processor, build_tokenizer
from tests.evaluation.benchmarks.conftest import write_vstar

CONFIGS = Path(__file__).parents[3] / "configs"
SERVER = """#!{python}
import json, sys, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

told = sys.argv[1:]
Path({seen!r}).write_text(json.dumps([*told, sorted(path.name for path in Path(told[1]).iterdir())]))
if "--broken" in told:
    sys.exit("CUDA out of memory")

class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/health" else 404)
        self.end_headers()

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        body = json.dumps({{"choices": [{{"message": {{"content": "\\\\boxed{{A}}"}}}}]}}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_): ...

time.sleep(0.7)  # loading
ThreadingHTTPServer(("127.0.0.1", int(told[told.index("--port") + 1])), Handler).serve_forever()
"""


@pytest.fixture
def seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program called `vllm` on the path; the file in which it notes how it was called."""
    program, seen = tmp_path / "bin" / "vllm", tmp_path / "seen.json"
    program.parent.mkdir()
    program.write_text(SERVER.format(python=sys.executable, seen=str(seen)))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=":")
    return seen


def test_benchmarks_are_asked_of_vllm_on_the_defenders_own_weights(seen: Path, tmp_path: Path) -> None:
    tokenizer = build_tokenizer([f"Is there a ring?\n{x}. yes\nAnswer with \\boxed{{{x}}}." for x in "ABCDEFGH"])
    defender = Defender(build_model(tokenizer, seed=0), build_processor(tokenizer))
    write_vstar(tmp_path / "vstar_bench")
    questions = read_benchmark("vstar", tmp_path, tmp_path / "cache")
    settings = BenchmarkSettings(names=("vstar",), vllm=VllmSettings(arguments=("--max-model-len", "512")))
    with open_engine(settings, defender, "d" * 64, 0.5, 1, tmp_path) as engine:
        assert engine.identity["name"] == "d" * 64, "by the weights, not by the port"
        with Journal(tmp_path / "answers.jsonl", engine.identity) as journal:
            _, figures = run_benchmark(questions, engine, 2, journal)
    assert figures["strict/accuracy"] == pytest.approx(1 / 3), "A is right once of three"
    verb, folder, *arguments, files = json.loads(seen.read_text())
    assert verb == "serve" and arguments[-2:] == ["--max-model-len", "512"]
    assert {"config.json", "model.safetensors", "chat_template.jinja"} <= set(files) and folder == str(
        tmp_path / "served"
    )
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"http://127.0.0.1:{arguments[arguments.index('--port') + 1]}/health", trust_env=False)


@pytest.mark.usefixtures("seen")
def test_one_that_does_not_start_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = VllmSettings(arguments=("--broken",), start_seconds=30)
    with (
        pytest.raises(EngineError, match=r"ended with code 1(?s:.*)CUDA out of memory"),
        vllm_server(tmp_path, broken, tmp_path / "vllm.log"),
    ):
        pass
    slow = VllmSettings(start_seconds=0.1)
    with (
        pytest.raises(EngineError, match=r"did not become healthy within 0\.1 s"),
        vllm_server(tmp_path, slow, tmp_path / "vllm.log"),
    ):
        pass
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(EngineError, match="no `vllm` on this machine"), vllm_server(tmp_path, slow, tmp_path / "log"):
        pass


def test_a_campaign_does_not_ask_one_endpoint_for_every_defender() -> None:
    where = '{url = "http://127.0.0.1:8000/v1", model = "m"}'
    with pytest.raises(ValueError, match="one and the same model"):
        load_campaign(CONFIGS / "smoke.toml", [f"evaluate.benchmarks.endpoint={where}"])
    with pytest.raises(ValueError, match="both set"):
        BenchmarkSettings(endpoint=EndpointSettings(url="http://x/v1", model="m"), vllm=VllmSettings())
    served = load_campaign(CONFIGS / "smoke.toml", ['evaluate.benchmarks.vllm={arguments=["--max-model-len", "512"]}'])
    assert served.evaluate.benchmarks.vllm is not None
