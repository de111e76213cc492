"""What runs on this very machine: ports that are free, servers that answer, and no proxy in between."""

import errno
import os
import socket
import urllib.error
import urllib.request
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

LOOPBACK = ("127.0.0.1", "localhost", "::1")
_ADDRESS = LOOPBACK[0]
_PROXIES = ("http_proxy", "https_proxy", "all_proxy")
_ANSWER_SECONDS = 5


def loopback_without_proxy(environment: Mapping[str, str]) -> dict[str, str]:
    """What to add to an environment that sends requests to a proxy, so that loopback is reached without it.

    Both spellings, as clients differ in which they read; what stands there is kept. Empty where there is no proxy: the
    mere presence of `NO_PROXY` makes some clients forget the proxies that a desktop is set up with.
    """
    if not any(environment.get(name) for proxy in _PROXIES for name in (proxy, proxy.upper())):
        return {}
    added: dict[str, str] = {}
    for name, other in (("NO_PROXY", "no_proxy"), ("no_proxy", "NO_PROXY")):
        hosts = [host.strip() for host in environment.get(name, environment.get(other, "")).split(",")]
        hosts = [host for host in hosts if host]
        if "*" not in hosts:
            added[name] = ",".join([*hosts, *(host for host in LOOPBACK if host not in hosts)])
    return added


def obstacle(port: int) -> str | None:
    """Why a server on loopback could not have the port now; None where it could."""
    with closing(socket.socket()) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a server that has just ended is no obstacle
        try:
            probe.bind((_ADDRESS, port))
        except OSError as error:
            taken = error.errno == errno.EADDRINUSE
            return "is taken by another program" if taken else f"cannot be used: {error.strerror}"
    return None


class PortError(ValueError):
    """A port that cannot be used, and what to do."""


def choose_port(option: str, wanted: int | None, usual: int, but: int | None = None) -> int:
    """The wanted port, or else the usual one or the next that is free. Raises PortError where the wanted one is not.

    Args:
        option: how the wish is spelled on the command line.
        but: a port that is already reserved.
    """
    if wanted is not None:
        if reason := "is the other server's" if wanted == but else obstacle(wanted):
            raise PortError(f"{option} {wanted} {reason}; name another one, or leave {option} out for a free one")
        return wanted
    port = next((port for port in range(usual, 65536) if port != but and obstacle(port) is None), None)
    if port is None:
        raise PortError(f"no port from {usual} on is free; name one with {option}")
    return port


def answers(url: str) -> bool:
    """Whether a GET of a loopback URL is answered with success."""
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(url, timeout=_ANSWER_SECONDS):
            return True
    except (urllib.error.URLError, OSError, ValueError):
        return False


def announce_prefect(prefect_home: Path, api: str) -> Path:
    """Let other commands of this home find the Prefect server that serves it; returns the file, to be removed."""
    file = prefect_home / "served-at"
    file.write_text(f"{os.getpid()} {api}\n", encoding="utf-8")
    return file


def announced_prefect(prefect_home: Path) -> str | None:
    """The API of the Prefect server that serves this home, where `aot ui` runs and it answers."""
    try:
        starter, api = (prefect_home / "served-at").read_text(encoding="utf-8").split()
        os.kill(int(starter), 0)
    except (OSError, ValueError):
        return None
    return api if answers(f"{api}/health") else None
