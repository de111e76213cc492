"""A team's servers on loopback, as real as they come without images: Postgres, Prefect and MLflow on it, moto's S3."""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import boto3
import httpx
import psycopg2
import pytest

ROOT = Path(__file__).parents[2]
PASSWORD = "correct-horse-battery"  # of servers that live for one test


def free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def until(condition: Callable[[], Any], seconds: float = 600) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.3)


class Server:
    """A process that can be ended and started again on the same port and data."""

    def __init__(self, command: list[str], environment: dict[str, str], ready: Callable[[], Any], log: Path) -> None:
        self.command, self.environment, self.ready, self.log = command, environment, ready, log

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command,
                env=os.environ | self.environment,
                stdout=log,
                stderr=log,
                cwd=ROOT,
                start_new_session=True,
            )
        until(lambda: self.process.poll() is not None or self.ready())
        assert self.process.poll() is None, self.log.read_text()

    def stop(self) -> None:
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def restart(self) -> None:
        """Killed, not asked; away for some seconds."""
        self.stop()
        time.sleep(3)
        self.start()


def _at(port: int) -> list[str]:
    return ["--host", "127.0.0.1", "--port", str(port)]


def answers(url: str) -> Callable[[], bool]:
    def ready() -> bool:
        try:
            return httpx.get(url).is_success
        except httpx.HTTPError:
            return False

    return ready


class Team:
    """All servers of a team, and the environment by which `aot run` uses them."""

    def __init__(self, folder: Path) -> None:
        self.ports = {name: free_port() for name in ("postgres", "s3", "mlflow", "prefect")}
        self.folder = folder
        database = f"127.0.0.1:{self.ports['postgres']}"
        self.s3_url = f"http://127.0.0.1:{self.ports['s3']}"
        self.mlflow_url = f"http://127.0.0.1:{self.ports['mlflow']}"
        self.prefect_url = f"http://127.0.0.1:{self.ports['prefect']}/api"
        self.auth = ("aot", PASSWORD)
        keys = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_REGION": "us-east-1"}
        self.client_environment = {
            **keys,
            "PREFECT_API_URL": self.prefect_url,
            "PREFECT_API_AUTH_STRING": f"aot:{PASSWORD}",
            "MLFLOW_TRACKING_URI": self.mlflow_url,
            "MLFLOW_TRACKING_USERNAME": "aot",
            "MLFLOW_TRACKING_PASSWORD": PASSWORD,
        }
        quiet = {"PREFECT_SERVER_ANALYTICS_ENABLED": "false", "PREFECT_HOME": str(folder / "prefect")}
        self.postgres = self._postgres()
        self.s3 = Server(
            [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.ports["s3"])],
            {},
            answers(self.s3_url),
            folder / "s3.log",
        )
        self.mlflow = Server(
            [sys.executable, "-m", "aot_core.tracking.server"],
            {
                **keys,
                "AWS_ENDPOINT_URL_S3": self.s3_url,
                "MLFLOW_S3_ENDPOINT_URL": self.s3_url,
                "AOT_MLFLOW_BACKEND": f"postgresql+psycopg2://aot:{PASSWORD}@{database}/mlflow",
                "AOT_MLFLOW_AUTH": f"postgresql+psycopg2://aot:{PASSWORD}@{database}/mlflow_auth",
                "AOT_MLFLOW_ARTIFACTS": "s3://bucket/mlflow",
                "AOT_MLFLOW_ALLOWED_HOSTS": f"127.0.0.1:{self.ports['mlflow']}",
                "AOT_MLFLOW_PORT": str(self.ports["mlflow"]),
                "AOT_MLFLOW_USER": "aot",
                "AOT_MLFLOW_PASSWORD": PASSWORD,
                "AOT_MLFLOW_WORKERS": "1",
                "MLFLOW_FLASK_SERVER_SECRET_KEY": PASSWORD,
            },
            answers(f"{self.mlflow_url}/health"),
            folder / "mlflow.log",
        )
        self.prefect = Server(
            [sys.executable, "-m", "prefect", "server", "start", *_at(self.ports["prefect"])],
            {
                **quiet,
                "PREFECT_API_DATABASE_CONNECTION_URL": f"postgresql+asyncpg://aot:{PASSWORD}@{database}/prefect",
                "PREFECT_SERVER_API_AUTH_STRING": f"aot:{PASSWORD}",
            },
            answers(f"{self.prefect_url}/health"),
            folder / "prefect.log",
        )

    def start(self) -> None:
        self.postgres.start()
        for name in ("prefect", "mlflow", "mlflow_auth"):
            with closing(self.connect("postgres")) as connection:
                connection.autocommit = True
                connection.cursor().execute(f"CREATE DATABASE {name}")
        self.s3.start()
        keys = {"aws_access_key_id": "key", "aws_secret_access_key": "secret"}
        self.objects = boto3.client("s3", endpoint_url=self.s3_url, region_name="us-east-1", **keys)
        self.objects.create_bucket(Bucket="bucket")
        self.mlflow.start()
        self.prefect.start()

    def stop(self) -> None:
        for server in (self.prefect, self.mlflow, self.s3, self.postgres):
            if hasattr(server, "process") and server.process.poll() is None:
                server.stop()

    def connect(self, database: str) -> Any:
        return psycopg2.connect(
            host="127.0.0.1", port=self.ports["postgres"], user="aot", password=PASSWORD, dbname=database
        )

    def _postgres(self) -> Server:
        """Postgres refuses to run as root: there it runs as `postgres`, as Debian's does."""
        candidates = [
            *sorted(Path("/usr/lib/postgresql").glob("*/bin")),
            Path(shutil.which("postgres") or "/nowhere").parent,
        ]
        binaries = next((folder for folder in candidates if (folder / "initdb").exists()), None)
        assert binaries is not None, "Postgres is not installed: apt-get install postgresql"
        data, secret = self.folder / "postgres", self.folder / "secret"
        data.mkdir()
        secret.write_text(PASSWORD)
        prefix: list[str] = []
        if os.geteuid() == 0:
            user = pwd.getpwnam("postgres")
            for path in (data, secret):
                os.chown(path, user.pw_uid, user.pw_gid)
            prefix = ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]
        initialise = [
            str(binaries / "initdb"),
            "-D",
            str(data),
            "-U",
            "aot",
            "--pwfile",
            str(secret),
            "-A",
            "scram-sha-256",
        ]
        subprocess.run([*prefix, *initialise], check=True, capture_output=True)

        def ready() -> bool:
            try:
                self.connect("postgres").close()
            except psycopg2.OperationalError:
                return False
            return True

        serve = [str(binaries / "postgres"), "-D", str(data), "-h", "127.0.0.1", "-p", str(self.ports["postgres"])]
        return Server([*prefix, *serve, "-k", str(data)], {}, ready, self.folder / "postgres.log")


@pytest.fixture(scope="session")
def team(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Team]:
    folder = tmp_path_factory.mktemp("team")
    for path in (folder, *folder.parents[:2]):
        path.chmod(path.stat().st_mode | 0o011)  # Postgres's user must get at its folder
    team = Team(folder)
    try:
        team.start()
        yield team
    finally:
        team.stop()
