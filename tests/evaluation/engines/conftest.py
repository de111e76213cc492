"""An OpenAI-compatible server on loopback that behaves as badly as it is told to."""

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest


@dataclass
class Server:
    url: str = ""
    trouble: Callable[[str, int], str] = lambda _prompt, _time: ""
    """(prompt and seed, how often it was asked before) to what goes wrong; "" answers."""
    says: Callable[[str, str], str] = lambda text, _picture: f"\\boxed{{A}} {text}"
    """(prompt, the last picture's data URI) to an answer."""
    asked: Counter[str] = field(default_factory=Counter)
    answered: Counter[str] = field(default_factory=Counter)
    in_flight: int = 0
    most_in_flight: int = 0
    bodies: list[dict[str, Any]] = field(default_factory=list)
    keys: set[str] = field(default_factory=set)
    lock: threading.Lock = field(default_factory=threading.Lock)


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as state:
        yield state


@contextmanager
def serving() -> Iterator[Server]:
    """A server on loopback while the context lasts."""
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            name = f"{body['messages'][0]['content'][-1]['text']}#{body['seed']}"
            with state.lock:
                before = state.asked[name]
                state.asked[name] += 1
                state.bodies.append(body)
                state.keys.add(self.headers.get("Authorization", ""))
                state.in_flight += 1
                state.most_in_flight = max(state.most_in_flight, state.in_flight)
            time.sleep(0.005)
            trouble = state.trouble(name, before)
            try:
                self._answer(trouble, body)
                if not trouble:
                    with state.lock:
                        state.answered[name] += 1
            except BrokenPipeError:
                pass
            finally:
                with state.lock:
                    state.in_flight -= 1

        def _answer(self, trouble: str, body: dict[str, Any]) -> None:
            *pictures, prompt = body["messages"][0]["content"]
            said = state.says(prompt["text"], pictures[-1]["image_url"]["url"] if pictures else "")
            choice = {"message": {"role": "assistant", "content": said}, "finish_reason": "stop"}
            good = json.dumps({"choices": [choice]})
            replies: dict[str, tuple[int, str]] = {
                "": (200, good),
                "length": (200, json.dumps({"choices": [choice | {"finish_reason": "length"}]})),
                "limit": (429, "{}"),
                "error": (500, "down"),
                "garbage": (200, "<html>not json"),
                "hollow": (200, '{"choices": []}'),
                "list": (200, '{"choices": [{"message": {"content": ["A"]}}]}'),
                "refused": (200, '{"choices": [{"message": {"content": null, "refusal": "no"}}]}'),
                "key": (401, '{"error": "wrong key"}'),
            }
            if trouble == "slow":
                self.connection.recv(1)  # until the client has waited long enough
                self.close_connection = True
                return
            if trouble == "cut":
                self.close_connection = True
                return
            code, reply = replies[trouble]
            self.send_response(code)
            if trouble == "limit":
                self.send_header("Retry-After", "0.01")
            self.send_header("Content-Length", str(len(reply)))
            self.end_headers()
            self.wfile.write(reply.encode())

        def log_message(self, format: str, *args: object) -> None: ...

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.daemon_threads = True
    state.url = f"http://127.0.0.1:{http.server_port}/v1"
    threading.Thread(target=http.serve_forever, daemon=True).start()
    try:
        yield state
    finally:
        http.shutdown()
        http.server_close()
