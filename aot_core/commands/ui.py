"""Serves MLflow's and Prefect's own pages on a home's data, on loopback alone."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from rich.console import Console

from aot_core.home import Home


def serve(root: Path, mlflow_port: int, prefect_port: int) -> int:
    """Start both servers and wait; Ctrl-C or the end of one ends both. Returns an exit code."""
    home = Home(root)
    if not home.root.is_dir():
        Console(stderr=True).print(f"{root} does not exist yet; `aot run configs/tiny.toml` makes it")
        return 2
    environment = os.environ | home.environment()
    os.environ.update(home.environment())
    from aot_core.tracking.database import prepare  # once the environment is set that MLflow reads when it is imported

    prepare(home.mlflow_uri)
    commands = {
        f"MLflow   http://127.0.0.1:{mlflow_port}": [
            sys.executable, "-m", "mlflow", "server", "--backend-store-uri", home.mlflow_uri,
            "--default-artifact-root", str(home.mlflow_folder / "artifacts"),
            "--host", "127.0.0.1", "--port", str(mlflow_port), "--workers", "1",
        ],
        f"Prefect  http://127.0.0.1:{prefect_port}": [
            sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(prefect_port),
        ],
    }  # fmt: skip
    children = [subprocess.Popen(command, env=environment) for command in commands.values()]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    Console().print("\n".join(commands), "\nCtrl-C ends both.", highlight=False)
    try:
        os.waitpid(-1, 0)
        return 1
    except KeyboardInterrupt:
        return 0
    finally:
        for child in children:
            child.terminate()
        for child in children:
            child.wait()
