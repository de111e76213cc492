"""Serves MLflow's and Prefect's own pages on a home's data, on loopback only."""

import base64
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from rich.console import Console

from aot_core.commands.handover import write_private
from aot_core.home import Home
from aot_core.loopback import PortError, announce_prefect, choose_port

MLFLOW_PORT, PREFECT_PORT = 5000, 4200
ENCRYPTION_KEY = "MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY"
"""Without it every process of MLflow's server makes up one of its own, and none can read a webhook's key that another,
or the one before it, has written."""
_PATIENCE_SECONDS = 10


def serve(root: Path, mlflow_port: int | None, prefect_port: int | None) -> int:
    """Start both servers and wait; Ctrl-C or the end of one ends both. Returns an exit code.

    Args:
        mlflow_port, prefect_port: None: the usual one, or the next that is free.
    """
    home, told = Home(root), Console(stderr=True, highlight=False, soft_wrap=True)
    if not home.root.is_dir():  # the first step to a schedule, before anything has run here
        told.print(f"{root} is a new home: nothing has been run in it yet")
    home.create()
    try:
        mlflow = choose_port("--mlflow-port", mlflow_port, MLFLOW_PORT, but=prefect_port)
        prefect = choose_port("--prefect-port", prefect_port, PREFECT_PORT, but=mlflow)
    except PortError as error:
        told.print(str(error), style="red")
        return 2
    for name, wanted, usual, port in (
        ("MLflow", mlflow_port, MLFLOW_PORT, mlflow),
        ("Prefect", prefect_port, PREFECT_PORT, prefect),
    ):
        if wanted is None and port != usual:
            told.print(f"port {usual} is taken; {name} is on {port}")
    api = f"http://127.0.0.1:{prefect}/api"
    environment = os.environ | home.environment()
    os.environ.update(home.environment())
    from aot_core.tracking.database import prepare  # once the environment is set that MLflow reads when it is imported

    prepare(home.mlflow_uri)
    # What its page and its own services ask; left to itself the page asks port 4200 or the caller's PREFECT_API_URL.
    environment |= {"PREFECT_API_URL": api, "PREFECT_SERVER_API_PORT": str(prefect)}
    environment.setdefault("PREFECT_UI_API_URL", api)
    # Eight processes that poll for MLflow's GenAI jobs, of which this project has none.
    environment.setdefault("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false")
    environment.setdefault(ENCRYPTION_KEY, _webhook_key(home))
    commands = {
        f"MLflow   http://127.0.0.1:{mlflow}": [
            sys.executable, "-m", "mlflow", "server", "--backend-store-uri", home.mlflow_uri,
            "--default-artifact-root", str(home.mlflow_folder / "artifacts"),
            "--host", "127.0.0.1", "--port", str(mlflow), "--workers", "1",
        ],
        f"Prefect  http://127.0.0.1:{prefect}": [
            sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(prefect),
        ],
    }  # fmt: skip
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(0))
    children: dict[str, subprocess.Popen[bytes]] = {}
    announced = announce_prefect(home.prefect, api)
    try:
        for page, command in commands.items():
            # A group of its own each, to be ended as a whole: both servers start processes.
            children[page.split()[0]] = subprocess.Popen(command, env=environment, start_new_session=True)
        Console(highlight=False).print("\n".join(commands), "\nCtrl-C ends both.")
        while not (ended := [name for name, child in children.items() if child.poll() is not None]):
            time.sleep(0.5)
        told.print(f"{ended[0]}'s server has ended; stopping the other one", style="red")
        return 1
    except KeyboardInterrupt:
        return 0
    finally:
        announced.unlink(missing_ok=True)
        _end(list(children.values()))


def _webhook_key(home: Home) -> str:
    """What MLflow's server encrypts its webhooks' keys with: the home's own, so that the next server can read them."""
    file = home.mlflow_folder / "webhook-key"
    if not file.is_file():
        # Fernet's form: 32 random bytes in URL-safe base64.
        write_private(file, base64.urlsafe_b64encode(os.urandom(32)).decode())
    return file.read_text()


def _end(children: list["subprocess.Popen[bytes]"]) -> None:
    """End the groups of processes: SIGTERM first, then SIGKILL."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        for child in children:
            with suppress(ProcessLookupError, PermissionError):  # the latter: macOS, of one that has ended
                os.killpg(child.pid, number)
        for child in children:
            with suppress(subprocess.TimeoutExpired):
                child.wait(_PATIENCE_SECONDS)
