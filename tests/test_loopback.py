"""What runs on this machine is reached without a proxy, and gets a port that is free."""

import os
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from aot_core.loopback import PortError, choose_port, loopback_without_proxy

ROOT = Path(__file__).parents[1]
PROXY = {"HTTP_PROXY": "http://proxy.example:3128"}
ALL = "127.0.0.1,localhost,::1"


@pytest.mark.parametrize(
    ("environment", "added"),
    [
        ({}, {}),
        ({"no_proxy": "intranet"}, {}),
        ({"https_proxy": ""}, {}),
        (PROXY, {"NO_PROXY": ALL, "no_proxy": ALL}),
        ({"all_proxy": "socks5://proxy.example"}, {"NO_PROXY": ALL, "no_proxy": ALL}),
        (PROXY | {"no_proxy": "intranet"}, {"NO_PROXY": f"intranet,{ALL}", "no_proxy": f"intranet,{ALL}"}),
        (
            PROXY | {"NO_PROXY": "a, localhost", "no_proxy": "b"},
            {"NO_PROXY": "a,localhost,127.0.0.1,::1", "no_proxy": f"b,{ALL}"},
        ),
        (PROXY | {"no_proxy": "*"}, {}),
    ],
)  # fmt: skip
def test_loopback_is_added_to_no_proxy(environment: dict[str, str], added: dict[str, str]) -> None:
    assert loopback_without_proxy(environment) == added
    assert loopback_without_proxy(environment | added) == added, "and once more changes nothing"


def test_clients_understand_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    for name, value in (PROXY | loopback_without_proxy(PROXY)).items():
        monkeypatch.setenv(name, value)
    assert all(urllib.request.proxy_bypass(host) for host in ("127.0.0.1", "localhost", "::1"))
    assert not urllib.request.proxy_bypass("example.org")
    client = httpx.Client()
    direct = client._transport_for_url(httpx.URL("http://example.org")) is not client._transport
    assert direct, "the proxy is there"
    for address in ("127.0.0.1", "localhost", "[::1]"):
        assert client._transport_for_url(httpx.URL(f"http://{address}:4200/api")) is client._transport


@pytest.fixture
def proxy() -> Iterator[tuple[str, list[bytes]]]:
    """A company's proxy, which reaches nobody's loopback; and what it was asked."""
    asked: list[bytes] = []
    with closing(socket.create_server(("127.0.0.1", 0))) as server:

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    asked.append(connection.recv(4096).split(b"\r\n")[0])
                    connection.sendall(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")

        threading.Thread(target=serve, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}", asked


def test_behind_a_proxy_prefects_own_server_is_reached(proxy: tuple[str, list[bytes]], tmp_path: Path) -> None:
    address, asked = proxy
    environment = {n: v for n, v in os.environ.items() if n.lower() not in ("no_proxy", "prefect_api_url")}
    environment |= {"HTTP_PROXY": address, "http_proxy": address}
    command = [sys.executable, "-m", "aot_core.commands.cli", "setup", "--gpus", "1", "--home", str(tmp_path)]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False)
    assert (done.returncode, done.stdout) == (0, 'run.gpu_slots = ["aot-gpu-0"]\n'), done.stderr
    assert asked == []


def test_a_port_is_chosen() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as other:
        taken = other.getsockname()[1]
        assert choose_port("--port", None, usual=taken) > taken
        with pytest.raises(PortError, match=f"--port {taken} is taken by another program; name another"):
            choose_port("--port", taken, usual=1)
    assert choose_port("--port", None, usual=taken) == choose_port("--port", taken, usual=1) == taken
    assert choose_port("--port", None, usual=taken, but=taken) > taken
    with pytest.raises(PortError, match="is the other server's"):
        choose_port("--port", taken, usual=1, but=taken)
