"""MLflow's own server posts an alias move that bypasses `aot`, signed, to a receiver that checks as the docs say."""

import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from mlflow import MlflowClient
from typer.testing import CliRunner

from aot_core.commands.cli import app
from aot_core.commands.ui import ENCRYPTION_KEY

ROOT = Path(__file__).parents[2]
KEY = "a-key-that-stands-in-the-environment"


@dataclass
class Receiver:
    """Whoever is told: every post with its headers."""

    url: str
    posts: list[tuple[dict[str, str], bytes]] = field(default_factory=list[tuple[dict[str, str], bytes]])

    def wait_for(self, words: str, seconds: float = 120) -> tuple[dict[str, str], bytes]:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            for headers, body in self.posts:
                if re.search(words.encode(), body):
                    return headers, body
            time.sleep(0.1)
        raise AssertionError(f"{words} was never posted; there came {[body for _, body in self.posts]}")


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            found.posts.append((dict(self.headers), body))
            self.send_response(204)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    found = Receiver(f"http://127.0.0.1:{server.server_port}/mlflow")
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield found
    server.shutdown()
    thread.join()


@pytest.fixture
def mlflow(tmp_path: Path) -> Iterator[str]:
    """A real server on loopback, allowed to post there."""
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", port, "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{tmp_path / 'mlflow.db'}"]
    environment = os.environ | {
        ENCRYPTION_KEY: "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=",
        "MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS": "true",
        "MLFLOW_WEBHOOK_ALLOWED_SCHEMES": "http,https",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }
    with (tmp_path / "log").open("wb") as log, subprocess.Popen(
        command, env=environment, stdout=log, stderr=log, cwd=tmp_path
    ) as server:  # fmt: skip
        try:
            until(lambda: server.poll() is not None or _answers(f"http://127.0.0.1:{port}/health"))
            assert server.poll() is None, (tmp_path / "log").read_text()
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()


def until(condition: Callable[[], bool], seconds: float = 600) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def _answers(url: str) -> bool:
    try:
        return httpx.get(url).is_success
    except httpx.HTTPError:
        return False


def genuine() -> Callable[[str, dict[str, str], bytes], bool]:
    """The function that docs/events.md tells a receiver to check with."""
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "events.md").read_text(encoding="utf-8"), re.DOTALL)
    names: dict[str, Any] = {}
    exec(code, names)
    return names["genuine"]


def test_an_alias_that_somebody_moves_by_hand_is_posted(
    mlflow: str, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("MLFLOW_TRACKING_URI", mlflow), ("RECEIVER", receiver.url), ("WEBHOOK_KEY", KEY)):
        monkeypatch.setenv(name, value)
    ours = ["webhook", "env:RECEIVER", "--key", "env:WEBHOOK_KEY"]
    for _ in range(2):  # the second time brings it up to date
        done = CliRunner().invoke(app, ours)
        assert done.exit_code == 0 and "an example arrived: HTTP 204" in done.output, done.output
        assert KEY not in done.output and receiver.url not in done.output
    client = MlflowClient(mlflow, registry_uri=mlflow)
    assert len(client.list_webhooks()) == 1

    client.create_registered_model("aot-defender")
    version = str(client.create_model_version("aot-defender", source="s3://bucket/model").version)
    client.set_registered_model_alias("aot-defender", "champion", version)
    receiver.wait_for('"entity": "model_version", "action": "created"')
    posted = '"entity": "model_version_alias", "action": "created".*"name": "aot-defender", "alias": "champion"'
    headers, body = receiver.wait_for(posted)
    check = genuine()
    assert check(KEY, headers, body)
    assert not check("another key", headers, body) and not check(KEY, headers, body + b" ")

    assert CliRunner().invoke(app, ["webhook", "--remove"]).output == "removed\n"
    assert CliRunner().invoke(app, ["webhook", "--remove"]).output == "there is no webhook of aot's\n"


def test_what_cannot_be_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    for name, value in (("RECEIVER", "https://receiver.example/mlflow"), ("WEBHOOK_KEY", KEY)):
        monkeypatch.setenv(name, value)
    place = ["--home", str(tmp_path)]
    a_file = CliRunner().invoke(app, ["webhook", "env:RECEIVER", "--key", "env:WEBHOOK_KEY", *place])
    assert a_file.exit_code == 2 and "MLflow's server alone posts webhooks" in " ".join(a_file.stderr.split())
    for arguments, told in (
        (
            ["https://hooks.example/T0/B1/Xyz123", "--key", "env:WEBHOOK_KEY"],
            "URL: the path of this URL looks like a token",
        ),
        (["env:RECEIVER", "--key", KEY], "--key: a key must not stand in a config"),
        (["env:RECEIVER"], "name the receiver and --key"),
    ):
        refused = CliRunner().invoke(app, ["webhook", *arguments, *place])
        said = " ".join(refused.stderr.split())
        assert refused.exit_code == 2 and told in said and KEY not in said and "Xyz123" not in said, said
