"""The webhook, against a real server on loopback."""

import hashlib
import hmac
import json
import logging
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import ClassVar

import pytest

from aot_core.contracts.promotion import LedgerEntry, PromotionSettings
from aot_core.promotion.notify import SIGNATURE, webhook

ENTRY = LedgerEntry(
    number=2, previous="", kind="done", action="promote", model="aot-defender", from_version="1", to_version="2",
    who="tester", when="2026-11-24T03:00:00+00:00", why="better",
)  # fmt: skip


class Hook(BaseHTTPRequestHandler):
    codes: ClassVar[list[int]] = []
    heard: ClassVar[list[dict[str, object]]] = []
    bodies: ClassVar[list[tuple[str, bytes]]] = []

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.bodies.append((self.headers.get(SIGNATURE, ""), body))
        self.heard.append(json.loads(body))
        self.send_response(self.codes.pop(0) if self.codes else 204)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None: ...


@pytest.fixture
def hook() -> Iterator[str]:
    Hook.heard, Hook.codes, Hook.bodies = [], [], []
    server = HTTPServer(("127.0.0.1", 0), Hook)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/promoted"
    server.shutdown()
    server.server_close()


def test_an_entry_is_posted_and_tried_again(hook: str) -> None:
    Hook.codes = [503, 500]
    webhook(PromotionSettings(webhook=hook), pause=0)(ENTRY)
    assert [heard["to_version"] for heard in Hook.heard] == ["2", "2", "2"]


def test_what_nobody_hears_changes_nothing(hook: str, caplog: pytest.LogCaptureFixture) -> None:
    Hook.codes = [500] * 3
    with caplog.at_level(logging.WARNING):
        webhook(PromotionSettings(webhook=hook), pause=0)(ENTRY)
        webhook(PromotionSettings(webhook="http://127.0.0.1:9/closed"), pause=0)(ENTRY)
    assert "did not take entry 2 of aot-defender (HTTP 500)" in caplog.text and "ConnectError" in caplog.text
    webhook(PromotionSettings())(ENTRY)


def test_a_post_is_signed_with_a_key_that_no_log_holds(
    hook: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    settings = PromotionSettings(webhook=hook, webhook_key="env:HOOK_KEY")
    with caplog.at_level(logging.DEBUG):
        monkeypatch.delenv("HOOK_KEY", raising=False)
        webhook(settings, pause=0)(ENTRY)
        assert Hook.bodies == [] and "HOOK_KEY, which is not set" in caplog.text
        monkeypatch.setenv("HOOK_KEY", "planted-key-7")
        webhook(settings, pause=0)(ENTRY)
    ((told, body),) = Hook.bodies
    seconds, digest = (part.partition("=")[2] for part in told.split(","))
    assert digest == hmac.new(b"planted-key-7", seconds.encode() + b"." + body, hashlib.sha256).hexdigest()
    assert "planted-key-7" not in caplog.text + settings.model_dump_json()
    with pytest.raises(ValueError, match="a key must not stand in a config"):
        PromotionSettings(webhook=hook, webhook_key="planted-key-7")


def test_slack_gets_a_line_for_people(hook: str) -> None:
    entry = ENTRY.model_copy(update={"why": "worst case <79 & up>"})
    webhook(PromotionSettings(webhook=hook, webhook_form="slack"), pause=0)(entry)
    (heard,) = Hook.heard
    told = "aot-defender: version 2 leads now, in place of 1 (tester: worst case &lt;79 &amp; up&gt;)"
    assert heard == {"text": told}
