"""What happens to a campaign from outside: Ctrl-C, a full disk, a database that is none. A sentence, and it goes on."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from aot_core.contracts.summary import CampaignSummary
from flows.own_server import set_damaged_aside

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.timeout(900)


def aot(home: Path, *words: str) -> "subprocess.Popen[str]":
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("PREFECT_", "MLFLOW_TRACKING"))}
    return subprocess.Popen(
        [sys.executable, "-m", "aot_core.commands.cli", "run", "configs/smoke.toml", "--home", str(home), *words],
        cwd=ROOT, env=kept | {"COLUMNS": "200"}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=True,
    )  # fmt: skip


def until(process: "subprocess.Popen[str]", word: str) -> None:
    assert process.stdout is not None
    assert any(word in line for line in process.stdout), f"{word} never came"


@pytest.mark.parametrize("times", [2, 1])
def test_ctrl_c_ends_with_a_line(tmp_path: Path, times: int) -> None:
    process = aot(tmp_path)
    until(process, "prepare_data" if times == 2 else "warm_start_attacker")
    for _ in range(times):
        os.killpg(process.pid, signal.SIGINT)  # a terminal sends it to everybody in the foreground
        time.sleep(0.5)
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 128 + signal.SIGINT
    assert "interrupted" in said and "Traceback" not in said, said
    if times == 1:
        (file,) = (tmp_path / "campaigns").glob("*/summary.json")
        assert CampaignSummary.model_validate_json(file.read_bytes()).status == "failed", "it said goodbye"


def test_a_database_that_is_none_is_told(tmp_path: Path) -> None:
    (tmp_path / "mlflow").mkdir()
    (tmp_path / "mlflow" / "mlflow.db").write_bytes(b"garbage " * 500)
    process = aot(tmp_path)
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 2 and "is not an SQLite database, or is damaged; restore its backup" in said
    assert "Traceback" not in said


def test_prefects_database_is_set_aside_where_it_is_none(tmp_path: Path) -> None:
    database = tmp_path / "prefect.db"
    assert set_damaged_aside(database) is None
    database.write_bytes(b"garbage " * 500)
    database.with_name("prefect.db-wal").write_bytes(b"x")
    aside = set_damaged_aside(database)
    assert aside is not None and aside.read_bytes() == b"garbage " * 500
    assert sorted(path.name for path in tmp_path.iterdir()) == [aside.name, aside.name + "-wal"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of a few megabytes."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(folder)], check=False)
    if mounted.returncode != 0:
        pytest.skip("only root may mount a small disk")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_full_disk_is_told_and_with_room_it_goes_on(small_disk: Path) -> None:
    only_data = ["--set", "stop_after=prepare_data"]
    process = aot(small_disk, *only_data)
    said, _ = process.communicate(timeout=400)
    assert process.returncode != 0 and "Traceback" not in said, said
    assert "free some space" in said, said
    subprocess.run(["mount", "-o", "remount,size=300m", str(small_disk)], check=True)
    process = aot(small_disk, *only_data)
    said, _ = process.communicate(timeout=400)
    assert process.returncode == 0 and "running    start  prepare_data" in said, said
    (file,) = (small_disk / "campaigns").glob("*/summary.json")
    summary = CampaignSummary.model_validate_json(file.read_bytes())
    assert summary.status == "finished" and [step.record.stage for step in summary.steps] == ["prepare_data"]
