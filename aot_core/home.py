"""One folder holds all state: the store, MLflow, Prefect's home, the campaigns' summaries and reports."""

import errno
import os
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from aot_core.contracts.paths import local_path
from aot_core.loopback import loopback_without_proxy

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
_FULL = (os.strerror(errno.ENOSPC), "database or disk is full")
"""What libraries say that raise errors of their own: safetensors, SQLite by way of MLflow, `shutil.copytree`."""


class HomeError(ValueError):
    """A folder that cannot be a home. The message says why, and what to do."""


class Home:
    """The layout below `--home`. Imports nothing heavy: the command line uses it first."""

    def __init__(self, root: str | Path) -> None:
        """Raises HomeError where no folder is or can be at `root`, and for a path that a database's address cannot
        hold: Prefect and MLflow put it into one as it stands."""
        self.root = _folder(root)
        if found := re.search(r"\?|%[0-9A-Fa-f]{2}", str(self.root)):
            raise HomeError(
                f"home {str(self.root)!r}: {found.group()!r} in its path would be read as a part of a database's "
                "address; give --home a path without '?' and without '%' before two hexadecimal digits"
            )

    def create(self) -> None:
        """Create the folders that the servers expect: neither Prefect nor SQLite creates them.

        Raises HomeError where that cannot be done.
        """
        for folder in (self.store, self.mlflow_folder, self.prefect):
            try:
                folder.mkdir(parents=True, exist_ok=True)
                writable = os.access(folder, os.W_OK)
            except OSError as error:
                raise HomeError(
                    f"home {self.root}: {folder} cannot be created ({error.strerror}); give --home a writable folder"
                ) from error
            if not writable:
                raise HomeError(f"home {self.root}: {folder} is not writable; make it so, or give another --home")

    @property
    def store(self) -> Path:
        return self.root / "store"

    @property
    def mlflow_folder(self) -> Path:
        return self.root / "mlflow"

    @property
    def mlflow_uri(self) -> str:
        """`MLFLOW_TRACKING_URI` where it is set (a team's server), else SQLite in this home.

        Raises ValueError where that holds a password: the address is written into summaries and specs.
        """
        given = os.environ.get("MLFLOW_TRACKING_URI")
        if given and not given.startswith(("sqlite:", "file:")) and "@" in given:
            raise ValueError(
                "MLFLOW_TRACKING_URI holds credentials; name the server alone there, and set MLFLOW_TRACKING_USERNAME "
                "and MLFLOW_TRACKING_PASSWORD"
            )
        return given or f"sqlite:///{self.mlflow_folder / 'mlflow.db'}"

    @property
    def prefect(self) -> Path:
        return self.root / "prefect"

    @property
    def cache(self) -> Path:
        """What was fetched from an S3 store."""
        return self.root / "cache"

    @property
    def campaigns(self) -> Path:
        return self.root / "campaigns"

    def campaign_folder(self, name: str, key: str) -> Path:
        """Where a campaign's summary and report lie."""
        return self.campaigns / f"{name}-{key[:12]}"

    @property
    def identity(self) -> str:
        """A random name that this home keeps, made when it is first asked for: paths are the same on many machines."""
        file = self.root / "identity"
        if not file.is_file():
            self.root.mkdir(parents=True, exist_ok=True)
            made = self.root / f".identity-{uuid.uuid4().hex}"
            made.write_text(made.name.removeprefix(".identity-"), encoding="utf-8")
            with suppress(FileExistsError):  # another process was faster
                os.link(made, file)
            made.unlink()
        return file.read_text(encoding="utf-8").strip()

    def lock_file(self, name: str) -> Path:
        """A lock file's path; its folder is made."""
        if not re.fullmatch(r"[\w.-]+", name):
            raise ValueError(f"lock name {name!r} may hold letters, digits, '.', '_' and '-' alone")
        folder = self.root / "locks"
        folder.mkdir(parents=True, exist_ok=True)
        return folder / f"{name}.lock"

    def environment(self) -> dict[str, str]:
        """The environment in which Prefect, MLflow and the hub clients stay inside this home and send no telemetry.

        What the caller has set is kept: a team points PREFECT_API_URL and MLFLOW_TRACKING_URI at servers. To
        NO_PROXY loopback is added.
        """
        vetted = {
            "PREFECT_HOME": str(self.prefect),
            "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "600",  # 12 s on two idle cores; busy ones took 200
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PREFECT_LOGGING_LEVEL": "WARNING",
            # What a campaign says on the terminal also stands in its flow run's logs (`flows/campaign.py`).
            "PREFECT_LOGGING_EXTRA_LOGGERS": "aot.campaign",
            # Often enough for a team's automation, which takes a silent run for dead (`flows/heartbeat.py`).
            "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
            # Who holds a GPU slot is known to every process of this home, and outlives the one that took it.
            "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "MLFLOW_LOGGING_LEVEL": "WARNING",
            "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
            "DO_NOT_TRACK": "true",
            "HF_HUB_OFFLINE": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "TOKENIZERS_PARALLELISM": "false",
            "AOT_CACHE": str(self.cache),
            # The same bits whatever a tensor's alignment in memory: a resumed campaign ends as an uninterrupted one.
            "MKL_CBWR": "AVX2,STRICT",
            # Small tensors come and go by the million on a CPU; giving their pages back each time costs a third.
            "MALLOC_MMAP_THRESHOLD_": str(2**32),
            "MALLOC_TRIM_THRESHOLD_": str(2**32),
        }
        unset = {name: value for name, value in vetted.items() if name not in os.environ}
        return unset | loopback_without_proxy(os.environ)


def _folder(root: str | Path) -> Path:
    text = str(root)
    if not text.strip() or "\0" in text:
        raise HomeError("home: the name is empty; give a folder, such as .aot")
    try:
        path = local_path(root).resolve()
        there = next(place for place in (path, *path.parents) if place.exists())
    except OSError as error:
        raise HomeError(
            f"home: {text[:80]!r} cannot be used ({error.strerror}); give a folder, such as .aot"
        ) from error
    if not there.is_dir():
        raise HomeError(f"home: {str(there)!r} is a file, so that a home cannot be made there; give a folder")
    return path


def no_room(error: Exception) -> str:
    """A disk that is full or read-only, in a sentence; "" for every other error."""
    said = str(error).partition("\n")[0]
    if not (isinstance(error, OSError) and error.errno in _NO_ROOM) and not any(words in str(error) for words in _FULL):
        return ""
    return (
        f"{said}; free some space on the home's disk and for temporary files, and run the same command again: it "
        "resumes where it stopped"
    )


@contextmanager
def room_told(home: str | Path) -> Iterator[None]:
    """A full or read-only disk, found inside the block, becomes a HomeError: one sentence."""
    try:
        yield
    except Exception as error:
        if not isinstance(error, ValueError) and (told := no_room(error)):
            raise HomeError(f"home {home}: {told}") from error
        raise
