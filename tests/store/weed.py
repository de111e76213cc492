"""SeaweedFS, the S3 server of `infra/compose.yaml`, as a process that can be killed, frozen and started again."""

import os
import random
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import boto3
import botocore.config
import botocore.exceptions


def find_weed() -> str | None:
    """The server's program: `AOT_WEED` (`make test-s3` sets it), or what is on the path."""
    return os.environ.get("AOT_WEED") or shutil.which("weed")


def _free_port() -> int:
    """A port that is free, and so is its sibling for gRPC (10,000 higher)."""
    while True:
        port = random.randint(12_000, 22_000)  # the sibling, too, lies below those that the kernel hands out (32,768)
        with closing(socket.socket()) as probe, closing(socket.socket()) as sibling:
            if probe.connect_ex(("127.0.0.1", port)) and sibling.connect_ex(("127.0.0.1", port + 10_000)):
                return port


class Weed:
    """One server over one folder, with a bucket `bucket`."""

    def __init__(self, program: str, folder: Path) -> None:
        self.program, self.folder = program, folder
        self.data = folder / "data"
        self.data.mkdir(parents=True, exist_ok=True)
        ports = {name: _free_port() for name in ("s3", "master", "volume", "filer")}
        self.url = f"http://127.0.0.1:{ports['s3']}"
        named = {"s3.port": ports["s3"], "master.port": ports["master"], "volume.port": ports["volume"]}
        self.flags = [f"-{name}={port}" for name, port in {**named, "filer.port": ports["filer"]}.items()]

    def start(self) -> None:
        """Returns once it takes a bucket."""
        command = [self.program, "server", f"-dir={self.data}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-s3"]
        limits = ["-volume.max=0", "-master.volumeSizeLimitMB=64", "-master.telemetry=false", "-s3.port.iceberg=0"]
        with (self.folder / "weed.log").open("ab") as log:
            self.process = subprocess.Popen(
                [*command, *limits, "-s3.port.lance=0", *self.flags], stdout=log, stderr=log
            )
        until = time.monotonic() + 120
        while not self._takes_a_bucket():
            assert self.process.poll() is None, (self.folder / "weed.log").read_text()[-3000:]
            assert time.monotonic() < until, "SeaweedFS does not come up"
            time.sleep(0.3)

    def _takes_a_bucket(self) -> bool:
        config = botocore.config.Config(retries={"total_max_attempts": 1}, read_timeout=5)
        client = boto3.client("s3", endpoint_url=self.url, region_name="us-east-1", config=config)
        try:
            if "bucket" not in [found["Name"] for found in client.list_buckets()["Buckets"]]:
                client.create_bucket(Bucket="bucket")
            client.put_object(Bucket="bucket", Key="up/probe", Body=b"up")
        except (botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError):
            return False
        return True

    def stop(self) -> None:
        """Killed, not asked."""
        self.process.kill()
        self.process.wait()

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """It takes connections and says nothing."""
        self.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)
