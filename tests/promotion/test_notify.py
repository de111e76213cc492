"""The webhook, against a real server on loopback."""

import json
import logging
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from aot_core.contracts.promotion import LedgerEntry
from aot_core.promotion.notify import webhook

ENTRY = LedgerEntry(
    number=2, previous="", kind="done", action="promote", model="aot-defender", from_version="1", to_version="2",
    who="tester", when="2026-11-24T03:00:00+00:00", why="better",
)  # fmt: skip


class Hook(BaseHTTPRequestHandler):
    codes: list[int] = []  # noqa: RUF012
    heard: list[dict[str, object]] = []  # noqa: RUF012

    def do_POST(self) -> None:
        self.heard.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(self.codes.pop(0) if self.codes else 204)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None: ...


@pytest.fixture
def hook() -> Iterator[str]:
    Hook.heard, Hook.codes = [], []
    server = HTTPServer(("127.0.0.1", 0), Hook)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/promoted"
    server.shutdown()
    server.server_close()


def test_an_entry_is_posted_and_tried_again(hook: str) -> None:
    Hook.codes = [503, 500]
    webhook(hook, pause=0)(ENTRY)
    assert [heard["to_version"] for heard in Hook.heard] == ["2", "2", "2"]


def test_what_nobody_hears_changes_nothing(hook: str, caplog: pytest.LogCaptureFixture) -> None:
    Hook.codes = [500] * 3
    with caplog.at_level(logging.WARNING):
        webhook(hook, pause=0)(ENTRY)
        webhook("http://127.0.0.1:9/closed", pause=0)(ENTRY)
    assert "did not take entry 2 of aot-defender (HTTP 500)" in caplog.text and "ConnectError" in caplog.text
    webhook(None)(ENTRY)
