"""`python -m aot_core.tracking.server`: MLflow's server as a team runs it, on Postgres and S3, with basic auth.

Everything comes from the environment (`AOT_MLFLOW_*`, see infra/compose.yaml), there are no default passwords, and a
file that holds one is readable by its owner only. Ends by becoming `mlflow server`.
"""

import configparser
import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

_MIN_PASSWORD = 12
"""MLflow's own limit."""


def prepare(settings: Mapping[str, str], folder: Path) -> tuple[list[str], dict[str, str]]:
    """The command line, and what its environment needs besides the caller's. Writes the auth file into a folder.

    Raises ValueError naming every setting that is missing, or a password that is too short.
    """
    needed = ("BACKEND", "AUTH", "ARTIFACTS", "ALLOWED_HOSTS", "USER", "PASSWORD")
    missing = [f"AOT_MLFLOW_{name}" for name in needed if not settings.get(f"AOT_MLFLOW_{name}")]
    if missing:
        raise ValueError(f"not set: {', '.join(missing)}; infra/.env.example lists what each is")
    if len(settings["AOT_MLFLOW_PASSWORD"]) < _MIN_PASSWORD:
        raise ValueError(f"AOT_MLFLOW_PASSWORD is shorter than {_MIN_PASSWORD} characters")
    auth = configparser.ConfigParser(interpolation=None)
    auth["mlflow"] = {
        "default_permission": "READ",
        "database_uri": settings["AOT_MLFLOW_AUTH"],
        "admin_username": settings["AOT_MLFLOW_USER"],
        "authorization_function": "mlflow.server.auth:authenticate_request_basic_auth",
    }
    file = folder / "auth.ini"
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as stream:
        auth.write(stream)
    command = [
        sys.executable, "-m", "mlflow", "server", "--app-name", "basic-auth",
        "--artifacts-destination", settings["AOT_MLFLOW_ARTIFACTS"], "--serve-artifacts",
        "--host", settings.get("AOT_MLFLOW_HOST", "127.0.0.1"), "--port", settings.get("AOT_MLFLOW_PORT", "5000"),
        "--allowed-hosts", settings["AOT_MLFLOW_ALLOWED_HOSTS"], "--workers", settings.get("AOT_MLFLOW_WORKERS", "2"),
        # uvicorn kills a worker that is silent for 5 s: on a busy host every one while it still imports, for ever.
        "--uvicorn-opts", "--timeout-worker-healthcheck 120",
    ]  # fmt: skip
    return command, {
        # By the environment: every user of the machine can read command lines.
        "MLFLOW_BACKEND_STORE_URI": settings["AOT_MLFLOW_BACKEND"],
        "MLFLOW_AUTH_CONFIG_PATH": str(file),
        "MLFLOW_AUTH_ADMIN_PASSWORD": settings["AOT_MLFLOW_PASSWORD"],
        "MLFLOW_DISABLE_TELEMETRY": "true",
        # Its job runner scores traces of chats: four more processes that import all of MLflow.
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }


def main() -> None:
    try:
        command, environment = prepare(os.environ, Path(tempfile.mkdtemp(prefix="aot-mlflow-")))
    except ValueError as error:
        sys.exit(str(error))
    os.execve(command[0], command, os.environ | environment)


if __name__ == "__main__":
    main()
