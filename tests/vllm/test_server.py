"""vLLM's server as the project starts it: asked, killed, begun again, and every way that it does not start."""

import json
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import httpx
import psutil
import pytest

from aot_core.base_models.names import SHIPPED
from aot_core.contracts.benchmarks import EndpointSettings, VllmSettings
from aot_core.defender.answering import Defender
from aot_core.evaluation.engines import vllm_server as module
from aot_core.evaluation.engines.openai_engine import OpenAIEngine
from aot_core.evaluation.engines.protocol import Ask, EngineError, Journal, ask_all
from aot_core.evaluation.engines.transformers_engine import TransformersEngine
from aot_core.evaluation.engines.vllm_server import vllm_server
from tests.vllm.conftest import ARGUMENTS, DEFENDER, QUICK, asks

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(3600)]
GREEDY = {"max_new_tokens": 32, "temperature": 0.0, "seed": 0}


@pytest.fixture
def below() -> Callable[[], list[psutil.Process]]:
    """What this process has started since the test began, and what that started."""
    before = set(psutil.Process().children(recursive=True))
    return lambda: [one for one in psutil.Process().children(recursive=True) if one not in before]


def ours(questions: list[Ask], folder: Path) -> dict[str, list[str]]:
    """Greedy answers of transformers in this process."""
    defender = Defender.load("aot-tiny-vl")
    engine = TransformersEngine(defender.model, defender.processor, name="w", batch_size=8, **GREEDY)
    with Journal(folder / "transformers.jsonl", engine.identity) as journal:
        return {key: list(said) for key, said in ask_all(engine, questions, journal).items()}


def of_the_server(endpoint: EndpointSettings) -> OpenAIEngine:
    return OpenAIEngine(endpoint, weights="w", **GREEDY)


def test_greedy_answers_are_those_of_transformers(served: EndpointSettings, tmp_path: Path) -> None:
    questions = asks(60)
    engine = of_the_server(served)
    with Journal(tmp_path / "vllm.jsonl", engine.identity) as journal:
        theirs = {key: list(said) for key, said in ask_all(engine, questions, journal).items()}
    assert theirs == ours(questions, tmp_path)
    assert len({answer for (answer,) in theirs.values()}) > 2, "not one answer to everything"


def test_a_wrong_name_ends_it_at_once(served: EndpointSettings, tmp_path: Path) -> None:
    engine = of_the_server(served.model_copy(update={"model": "another"}))
    with (
        Journal(tmp_path / "vllm.jsonl", engine.identity) as journal,
        pytest.raises(EngineError, match=r"refused the request with HTTP 404: .*another"),
    ):
        engine.run(asks(3), journal)


def test_killed_in_the_middle_it_says_so_and_the_next_one_goes_on(
    tmp_path: Path, below: Callable[[], list[psutil.Process]]
) -> None:
    """The worker goes as the kernel ends one that is out of memory; the server then ends by itself."""
    questions = asks(12)
    opened: list[str] = []
    one_by_one = {"concurrency": 1}

    def noted(ask: Ask, *, kills: bool = False) -> Ask:
        def open_it() -> object:
            opened.append(ask.key)
            if kills:
                (worker,) = [one for one in below() if "VLLM::Worker" in (one.name(), *one.cmdline())]
                os.kill(worker.pid, signal.SIGKILL)
            return ask.open()

        return replace(ask, open=open_it)

    with (
        pytest.raises(EngineError, match=r"vllm serve ended with code -?\d+ while it was asked: (?s:.*)last messages:"),
        vllm_server(DEFENDER, QUICK, tmp_path / "vllm.log", "float32") as endpoint,
    ):
        engine = of_the_server(endpoint.model_copy(update=one_by_one))
        with Journal(tmp_path / "vllm.jsonl", engine.identity) as journal:
            engine.run([noted(ask, kills=number == 5) for number, ask in enumerate(questions)], journal)
    assert opened == [f"q{number}" for number in range(6)] and below() == [], "nothing is left of it"
    with pytest.raises(httpx.ConnectError):
        httpx.get(endpoint.url, trust_env=False)

    opened.clear()
    with vllm_server(DEFENDER, QUICK, tmp_path / "vllm.log", "float32") as endpoint:
        engine = of_the_server(endpoint)
        with Journal(tmp_path / "vllm.jsonl", engine.identity) as journal:
            said = ask_all(engine, [noted(ask) for ask in questions], journal)
    assert sorted(opened) == sorted(f"q{number}" for number in range(5, 12)), "what was answered is not asked again"
    assert {key: list(answers) for key, answers in said.items()} == ours(questions, tmp_path)
    assert below() == []


@contextmanager
def taken() -> Iterator[int]:
    """A port on which another server says yes to everything."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps({"data": [{"id": "defender"}]}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


def test_another_server_on_its_port_is_not_taken_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with taken() as port:
        monkeypatch.setattr(module, "_free_port", lambda: port)
        with (
            pytest.raises(EngineError, match=r"vllm serve ended with code 1; (?s:.*)[Aa]ddress already in use"),
            vllm_server(DEFENDER, QUICK, tmp_path / "vllm.log", "float32"),
        ):
            pass


@pytest.mark.parametrize("model", ["aot-tiny-edit", "empty"])
def test_a_folder_that_it_cannot_serve_is_told_in_its_own_words(model: str, tmp_path: Path) -> None:
    folder = SHIPPED / model if model.startswith("aot") else tmp_path
    with (
        pytest.raises(EngineError, match=r"vllm serve ended with code 1; (?s:.*)(config\.json|config file|model type)"),
        vllm_server(folder, QUICK, tmp_path / "vllm.log", "float32"),
    ):
        pass


def test_more_memory_than_there_is_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "100000")
    with (
        pytest.raises(EngineError, match=r"vllm serve ended with code 1; (?s:.*)[Mm]emory"),
        vllm_server(DEFENDER, QUICK, tmp_path / "vllm.log", "float32"),
    ):
        pass


def test_one_that_is_too_slow_is_ended(tmp_path: Path, below: Callable[[], list[psutil.Process]]) -> None:
    slow = VllmSettings(arguments=ARGUMENTS, start_seconds=0.1)
    with (
        pytest.raises(EngineError, match=r"did not become healthy within 0\.1 s"),
        vllm_server(DEFENDER, slow, tmp_path / "vllm.log", "float32"),
    ):
        pass
    assert below() == []
