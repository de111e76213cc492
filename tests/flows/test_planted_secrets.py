"""Secrets that are planted wherever a campaign may be given one are found in nothing that it writes, and in no `ps`."""

import base64
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar
from urllib.parse import quote

import psutil
import pytest

from aot_core.home import Home

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.timeout(1800)


def planted(name: str) -> str:
    return f"PLANTED/{name}+hunter2"


ENVIRONMENT = {
    "HF_TOKEN": planted("hub"),
    "AWS_SECRET_ACCESS_KEY": planted("aws-key"),
    "AWS_SESSION_TOKEN": planted("aws-session"),
    "MLFLOW_TRACKING_PASSWORD": planted("mlflow-password"),
    "MLFLOW_TRACKING_TOKEN": planted("mlflow-token"),
    "VLLM_API_KEY": planted("vllm"),
    "OPPONENT_KEY": planted("opponent-key"),
}
"""What a user's environment holds for the services that a campaign uses."""

IN_ADDRESSES = {"hook": planted("hook"), "opponent": planted("opponent"), "endpoint": planted("s3-endpoint")}
"""In addresses that the config refers to: by an environment variable, and by a Prefect block."""

REFUSED = {
    f'promotion.webhook="https://hooks.example.com/services/{planted("plain-hook")}"': planted("plain-hook"),
    f'run.s3.endpoint_url="https://user:{quote(planted("plain-s3"), safe="")}@s3.example.com"': planted("plain-s3"),
    f'evaluate.benchmarks.vllm.arguments=["--api-key", "{planted("argument")}"]': planted("argument"),
    f'run.store="s3://key:{planted("store")}@bucket/x"': planted("store"),
}
"""Written into the config itself: refused, and not repeated."""

ALL = [*ENVIRONMENT.values(), *IN_ADDRESSES.values(), *REFUSED.values()]


class Services(BaseHTTPRequestHandler):
    """The webhook and the opponent, one behind the other's port."""

    protocol_version = "HTTP/1.1"
    asked: ClassVar[list[tuple[str, str]]] = []

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.asked.append((self.path, self.headers.get("Authorization", "")))
        reply = json.dumps({"choices": [{"message": {"role": "assistant", "content": "\\boxed{A}"}}]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(reply)))
        self.end_headers()
        self.wfile.write(reply)

    def log_message(self, format: str, *args: object) -> None: ...


@pytest.fixture
def services() -> Iterator[str]:
    Services.asked = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Services)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def found_in(content: bytes) -> set[str]:
    """The planted secrets in some bytes: as they are, as a URL or JSON has them, and in base64."""
    forms = {
        secret: {secret, quote(secret), quote(secret, safe=""), json.dumps(secret).strip('"').replace("/", "\\/")}
        for secret in ALL
    }
    return {
        secret
        for secret, texts in forms.items()
        if any(text.encode() in content for text in texts) or base64.b64encode(secret.encode()) in content
    }


def test_planted_secrets_are_found_nowhere(tmp_path: Path, services: str) -> None:
    assert len(ALL) >= 12
    home, scratch = tmp_path / "home", tmp_path / "tmp"
    scratch.mkdir()
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "MLFLOW_"))}
    environment |= ENVIRONMENT | {
        "TMPDIR": str(scratch),
        "AWS_ACCESS_KEY_ID": "AKIA",
        "HOOK_URL": f"{services}/{IN_ADDRESSES['hook']}",
        "OPPONENT_URL": f"{services}/{IN_ADDRESSES['opponent']}/v1",
    }
    make_block(home, environment, f"https://user:{quote(IN_ADDRESSES['endpoint'], safe='')}@s3.example.com")

    for override, secret in REFUSED.items():
        done = start(home, environment, ["--set", override])
        said, _ = done.communicate(timeout=120)
        assert done.returncode == 2 and not found_in(said.encode()), (secret, said)

    campaign = start(
        home,
        environment,
        [
            *("--launcher", "subprocess"),
            *("--set", "promotion.webhook=env:HOOK_URL"),
            *("--set", "run.s3.endpoint_url=prefect-block:secret/planted-endpoint"),
            *("--set", "attacker_round.opponent={url = 'env:OPPONENT_URL', model = 'm', api_key_env = 'OPPONENT_KEY'}"),
            *("--set", "attacker_round.reward.efficacy=share"),
            *("--set", "attacker_round.reward.dense=0"),
            *("--set", "attacker_round.candidates=48"),
            *("--set", "attacker_round.probe=4"),
        ],
    )
    told: list[str] = []
    reader = threading.Thread(target=lambda: told.append(campaign.communicate()[0]), daemon=True)
    reader.start()
    seen = watch_arguments(campaign.pid, reader)
    assert campaign.returncode == 0, told

    assert any(path.startswith(f"/{IN_ADDRESSES['hook']}") for path, _ in Services.asked), "the webhook was used"
    used = [key for path, key in Services.asked if path == f"/{IN_ADDRESSES['opponent']}/v1/chat/completions"]
    assert used and set(used) == {f"Bearer {ENVIRONMENT['OPPONENT_KEY']}"}, "the opponent was asked"
    assert not found_in("\n".join(told).encode())
    assert any("aot_core.stages" in line for line in seen) and not found_in("\n".join(seen).encode())
    files = [path for place in (home, scratch) for path in place.rglob("*") if path.is_file()]
    assert {"mlflow.db", "prefect.db", "summary.json", "report.html", "report.md"} <= {path.name for path in files}
    leaks = {str(path): found for path in files if (found := found_in(path.read_bytes()))}
    assert not leaks, leaks
    (summary,) = home.glob("campaigns/*/summary.json")
    assert summary.stat().st_mode & 0o777 == 0o600
    assert not list((home / "handover").iterdir())
    counts = f"{len(files)} files, {len(seen)} command lines, {len(Services.asked)} requests"
    print(f"\n{len(ALL)} secrets planted, {counts}: none found")


def make_block(home: Path, environment: dict[str, str], value: str) -> None:
    place = Home(home)
    place.create()
    code = "import os; from prefect.blocks.system import Secret; Secret(value=os.environ['V']).save('planted-endpoint')"
    given = environment | place.environment() | {"V": value}
    subprocess.run([sys.executable, "-c", code], env=given, check=True, capture_output=True, timeout=200)


def start(home: Path, environment: dict[str, str], arguments: list[str]) -> "subprocess.Popen[str]":
    command = [
        sys.executable,
        "-m",
        "aot_core.commands.cli",
        "run",
        "configs/smoke.toml",
        "--home",
        str(home),
        *arguments,
    ]
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def watch_arguments(pid: int, reader: threading.Thread) -> set[str]:
    """The command line of a process and of all that it starts, while it runs."""
    seen: set[str] = set()
    process = psutil.Process(pid)
    while reader.is_alive():
        try:
            for one in (process, *process.children(recursive=True)):
                seen.add("\0".join(one.cmdline()))
        except psutil.Error:
            pass
        time.sleep(0.2)
    return seen
