"""Round trips against a server on loopback: nothing lost, nothing asked twice, whatever goes wrong."""

import base64
import io
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from aot_core.contracts.benchmarks import EndpointSettings
from aot_core.contracts.protocols import is_cut_off
from aot_core.evaluation.engines.openai_engine import OpenAIEngine
from aot_core.evaluation.engines.protocol import Ask, EngineError, Journal, ask_all
from tests.evaluation.engines.conftest import Server

ROOT = Path(__file__).parents[3]


def engine(server: Server, **settings: object) -> OpenAIEngine:
    quick = {"concurrency": 6, "timeout_seconds": 60, "retries": 4, "pause_seconds": 0.01}
    endpoint = EndpointSettings(url=server.url, model="served", **{**quick, **settings})  # pyright: ignore
    return OpenAIEngine(endpoint, max_new_tokens=32, temperature=0.7, seed=3)


def questions(count: int, samples: int = 2) -> list[Ask]:
    def pictures(shade: int) -> Callable[[], list[Image.Image]]:
        return lambda: [Image.new("RGB", (3, 2), (shade, 0, 0))]

    return [Ask(f"q{i}", f"question {i}", pictures(i), samples) for i in range(count)]


def asked(server: Server, path: Path, asks: list[Ask], **settings: object) -> dict[str, list[str]]:
    who = engine(server, **settings)
    with Journal(path, who.identity) as journal:
        return ask_all(who, asks, journal)


def test_errors_time_outs_limits_and_garbage_lose_nothing(server: Server, tmp_path: Path) -> None:
    troubles = ["error", "slow", "limit", "garbage", "hollow", "list", "cut", ""]

    def trouble(name: str, before: int) -> str:
        number = int(name.split()[1].split("#")[0])
        return troubles[number % len(troubles)] if before < 1 + number % 2 else ""

    server.trouble = trouble
    asks = questions(24)
    answers = asked(server, tmp_path / "a.jsonl", asks, timeout_seconds=3)
    assert answers == {f"q{i}": [f"\\boxed{{A}} question {i}"] * 2 for i in range(24)}
    # Every question and sample was answered once, however often it had to be asked.
    assert len(server.answered) == 48 and set(server.answered.values()) == {1}
    assert asked(server, tmp_path / "a.jsonl", asks) == answers
    assert sum(server.answered.values()) == 48, "the second time nothing is asked"


def test_what_is_sent(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENDPOINT_KEY", "secret")
    asked(server, tmp_path / "a.jsonl", questions(1, 3), api_key_env="ENDPOINT_KEY")
    body = server.bodies[0]
    assert (body["model"], body["temperature"], body["max_tokens"]) == ("served", 0.7, 32)
    image, text = body["messages"][0]["content"]
    assert text == {"type": "text", "text": "question 0"}
    png = base64.b64decode(image["image_url"]["url"].removeprefix("data:image/png;base64,"))
    assert Image.open(io.BytesIO(png)).size == (3, 2)
    assert len({body["seed"] for body in server.bodies}) == 3, "each asking has a seed of its own"
    assert server.keys == {"Bearer secret"}
    assert "secret" not in (tmp_path / "a.jsonl").read_text()
    with pytest.raises(EngineError, match="NO_SUCH_KEY is empty"):
        engine(server, api_key_env="NO_SUCH_KEY")


def test_a_refusal_is_an_answer(server: Server, tmp_path: Path) -> None:
    server.trouble = lambda *_: "refused"
    assert asked(server, tmp_path / "a.jsonl", questions(1, 1)) == {"q0": [""]}


def test_a_cut_off_answer_is_told_from_a_whole_one_also_after_a_restart(server: Server, tmp_path: Path) -> None:
    server.trouble = lambda name, _: "length" if name.startswith("question 1#") else ""
    for _ in range(2):  # the second time from the journal alone
        answers = asked(server, tmp_path / "a.jsonl", questions(3))
        assert {key: [is_cut_off(text) for text in texts] for key, texts in answers.items()} == {
            "q0": [False, False],
            "q1": [True, True],
            "q2": [False, False],
        }
        server.trouble = lambda *_: "error"
    with Journal(tmp_path / "a.jsonl", engine(server).identity) as journal:
        journal.export(tmp_path / "a.txt")
    assert [line.endswith(', "length"]') for line in (tmp_path / "a.txt").read_text().splitlines()] == [
        False, False, True, True, False, False
    ]  # fmt: skip


def test_a_wrong_key_ends_it_at_once(server: Server, tmp_path: Path) -> None:
    server.trouble = lambda *_: "key"
    with pytest.raises(EngineError, match="refused the request with HTTP 401"):
        asked(server, tmp_path / "a.jsonl", questions(200))
    assert len(server.asked) < 60 and set(server.asked.values()) == {1}


def test_told_is_what_failed_for_good_and_not_who_was_waiting(server: Server, tmp_path: Path) -> None:
    waiting = threading.Event()

    def trouble(name: str, _: int) -> str:
        if name.startswith("question 0#"):
            waiting.set()
            return "error"
        waiting.wait()
        return "key"

    server.trouble = trouble
    with pytest.raises(EngineError, match="refused the request with HTTP 401"):
        asked(server, tmp_path / "a.jsonl", questions(2, 1), pause_seconds=20.0)
    assert set(server.asked.values()) == {1}


def test_an_endpoint_that_stays_down_keeps_what_was_answered(server: Server, tmp_path: Path) -> None:
    server.trouble = lambda name, _: "error" if name.startswith("question 7#") else ""
    with pytest.raises(EngineError, match="question q7 failed 5 times, the last time with HTTP 500"):
        asked(server, tmp_path / "a.jsonl", questions(20))
    before = dict(server.answered)
    server.trouble = lambda *_: ""
    assert len(asked(server, tmp_path / "a.jsonl", questions(20))) == 20
    assert set(server.answered.values()) == {1} and len(before) < 40
    assert 1 < server.most_in_flight <= 6


def test_a_journal_of_something_else_is_refused(tmp_path: Path) -> None:
    with Journal(tmp_path / "a.jsonl", {"model": "one"}) as journal:
        journal.record("q", 0, "A")
    with pytest.raises(EngineError, match="another model or other settings"):
        Journal(tmp_path / "a.jsonl", {"model": "two"})


def test_a_half_written_line_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    with Journal(path, 1) as journal:
        journal.record("q", 0, "zwölf\n")
    with path.open("ab") as stream:
        stream.write(b'["q", 1, "half')
    with Journal(path, 1) as journal:
        assert journal.has("q", 0) and not journal.has("q", 1)
        journal.record("q", 1, "whole")
    with Journal(path, 1) as journal:
        assert journal.answers(Ask("q", "", list, 2)) == ["zwölf\n", "whole"]


KILLED = """
import sys
from pathlib import Path
from tests.evaluation.engines.conftest import Server
from tests.evaluation.engines.test_openai_engine import asked, questions
asked(Server(url=sys.argv[1]), Path(sys.argv[2]), questions(60), timeout_seconds=30)
"""


def test_killed_half_way_it_does_not_ask_again_what_it_has(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    server.trouble = lambda *_: time.sleep(0.02) or ""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([sys.executable, "-c", KILLED, server.url, str(path)], cwd=ROOT, env=environment)
    while len(server.answered) < 30:
        assert process.poll() is None
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    with Journal(path, engine(server).identity) as journal:
        kept = sum(journal.has(ask.key, n) for ask in questions(60) for n in range(2))
    assert 30 - 6 <= kept < 120
    server.answered.clear()
    server.trouble = lambda *_: ""
    assert len(asked(server, path, questions(60))) == 60
    assert sum(server.answered.values()) == 120 - kept
