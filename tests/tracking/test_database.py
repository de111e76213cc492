"""MLflow's SQLite file: killed while it is made, half made, damaged, locked; and what was deleted on MLflow's pages."""

import os
import random
import shutil
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from mlflow import MlflowClient

import aot_core.tracking.database as database
from aot_core.tracking.database import prepare, told
from aot_core.tracking.mlflow_tracking import fetch_artifact, log_artifact, open_campaign_run, open_round_run
from aot_core.tracking.protocol import TrackingError
from aot_core.tracking.references import registered_artifacts

ROOT = Path(__file__).parents[2]
OPEN = (
    "import sys; from aot_core.tracking.mlflow_tracking import open_campaign_run;"
    "print('opening', flush=True); print(open_campaign_run(sys.argv[1], 'aot', 'key', 'name', {}))"
)


def start(uri: str) -> "subprocess.Popen[str]":
    process = subprocess.Popen(
        [sys.executable, "-c", OPEN, uri], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "opening\n"
    return process


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with a run in it."""
    file = tmp_path_factory.mktemp("made") / "mlflow.db"
    open_campaign_run(f"sqlite:///{file}", "aot", "key", "name", {"seed": 0})
    return file


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "mlflow.db"


def backups(file: Path) -> list[Path]:
    return sorted(file.parent.glob("mlflow.db.backup-*"))


def half_made(file: Path) -> None:
    """As MLflow's migrations leave a database when they are killed: tables, and a revision that is behind them."""
    with sqlite3.connect(file) as connection:
        connection.executescript(
            "CREATE TABLE alembic_version (version_num VARCHAR(32)); CREATE TABLE runs (x INTEGER);"
        )
        connection.execute("INSERT INTO alembic_version VALUES ('451aebb31d03')")
        connection.execute("CREATE TABLE logged_models (x INTEGER)")


@pytest.mark.timeout(300)
def test_killed_while_it_is_made_it_opens_all_the_same(file: Path) -> None:
    whole = time.monotonic()
    start(f"sqlite:///{file}").wait()
    whole = time.monotonic() - whole
    drawn = random.Random(0)
    for number in range(3):
        folder = file.parent / str(number)
        folder.mkdir()
        uri = f"sqlite:///{folder}/mlflow.db"
        for _ in range(2):
            killed = start(uri)
            time.sleep(drawn.uniform(0, whole))
            killed.kill()
            killed.wait()
        if (folder / "mlflow.db").exists():
            assert database._state(folder / "mlflow.db") == "current", "it comes into its place whole"
        again = start(uri)
        said, complained = again.communicate()
        assert again.returncode == 0 and len(said.strip()) == 32, complained
        assert not list(folder.glob(".mlflow.db.making-*")) and not backups(folder / "mlflow.db")


def test_two_at_once_make_one(file: Path) -> None:
    both = [start(f"sqlite:///{file}") for _ in range(2)]
    ended = [process.communicate() for process in both]
    assert [process.returncode for process in both] == [0, 0], ended


def test_one_that_was_left_half_made_with_nothing_in_it_is_set_aside(
    file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    half_made(file)
    before = file.read_bytes()
    assert len(open_campaign_run(f"sqlite:///{file}", "aot", "key", "name", {})) == 32
    (backup,) = backups(file)
    assert backup.read_bytes() == before
    (line,) = [line for line in caplog.messages if "left half made" in line]
    assert backup.name in line and "\n" not in line


def test_one_that_was_left_half_migrated_with_runs_in_it_is_told_and_left_alone(file: Path, made: Path) -> None:
    shutil.copyfile(made, file)
    with sqlite3.connect(file) as connection:  # the last migration's table stands, and its revision does not
        connection.execute("UPDATE alembic_version SET version_num = '451aebb31d03'")
    before = file.read_bytes()
    with pytest.raises(TrackingError, match=r"holds 1 run and was left half migrated .* restore its backup"):
        prepare(f"sqlite:///{file}")
    assert file.read_bytes() == before and not backups(file) and not list(file.parent.glob(".mlflow.db.making-*"))


def test_one_of_an_earlier_mlflow_is_migrated_as_a_copy(file: Path, made: Path) -> None:
    from alembic import command
    from mlflow.store.db.utils import _get_alembic_config, create_sqlalchemy_engine

    shutil.copyfile(made, file)
    engine = create_sqlalchemy_engine(f"sqlite:///{file}")
    with engine.begin() as connection:
        config = _get_alembic_config(f"sqlite:///{file}")
        config.attributes["connection"] = connection
        try:
            command.downgrade(config, "-1")
        except NotImplementedError:
            pytest.skip("MLflow's newest migration goes one way")
    engine.dispose()
    if database._state(file) == "current":
        pytest.skip("MLflow's newest migration cannot be taken back")
    before = file.read_bytes()
    run_id = open_campaign_run(f"sqlite:///{file}", "aot", "key", "name", {})
    assert run_id == open_campaign_run(f"sqlite:///{made}", "aot", "key", "name", {}), "its run is in it"
    (backup,) = backups(file)
    assert backup.read_bytes() == before


@pytest.mark.parametrize("contents", [b"garbage, and more of it " * 50, b"SQLite format 3\0" + b"\xff" * 5000])
def test_garbage_is_told_and_left_alone(file: Path, contents: bytes) -> None:
    file.write_bytes(contents)
    with pytest.raises(TrackingError, match=r"not an SQLite database, or is damaged; restore its backup"):
        prepare(f"sqlite:///{file}")
    assert file.read_bytes() == contents


def test_an_empty_file_is_none_yet(file: Path) -> None:
    file.touch()
    assert registered_artifacts(f"sqlite:///{file}") == []


LOCK = """
import sqlite3, sys, time
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN EXCLUSIVE")
print("locked", flush=True)
time.sleep(float(sys.argv[2]))
"""


def test_a_lock_is_waited_for_and_then_told(
    made: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def holder(seconds: float) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            [sys.executable, "-c", LOCK, str(made), str(seconds)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None and process.stdout.readline() == "locked\n"
        return process

    database._seen.clear()
    holds = holder(4)
    prepare(f"sqlite:///{made}")
    assert "which another process has locked" in caplog.text and holds.wait() == 0
    database._seen.clear()
    monkeypatch.setattr(database, "_PATIENCE_SECONDS", 1.0)
    holds = holder(60)
    with pytest.raises(TrackingError, match=r"is locked by another process, for 1 s now; end that process"):
        prepare(f"sqlite:///{made}")
    holds.kill()
    holds.wait()


def test_trouble_with_the_open_database_is_a_sentence(file: Path) -> None:
    uri = f"sqlite:///{file}"
    run_id = open_campaign_run(uri, "aot", "key", "name", {})
    with sqlite3.connect(file) as connection:
        connection.execute("DROP TABLE tags")
    with pytest.raises(TrackingError, match=r"MLflow's database: no such table: tags; .*backup") as raised, told():
        MlflowClient(uri).get_run(run_id)
    assert "\n" not in str(raised.value)
    with pytest.raises(TrackingError, match=r"^MLflow: "), told():
        MlflowClient(uri).get_registered_model("nobody")


def test_what_was_deleted_on_mlflows_pages_is_restored(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    uri = f"sqlite:///{file}"
    client = MlflowClient(uri)
    parent = open_campaign_run(uri, "aot", "key", "name", {"seed": 0})
    child = open_round_run(uri, "aot", parent, 1)
    client.delete_run(child)
    client.delete_run(parent)
    assert open_campaign_run(uri, "aot", "key", "name", {"seed": 0}) == parent
    assert open_round_run(uri, "aot", parent, 1) == child
    client.log_metric(child, "works", 1.0)
    client.delete_experiment(client.get_run(parent).info.experiment_id)
    assert open_campaign_run(uri, "aot", "key", "name", {"seed": 0}) == parent
    client.log_metric(open_round_run(uri, "aot", parent, 1), "works", 2.0)
    restored = [line for line in caplog.messages if "had been deleted" in line]
    assert len(restored) >= 3 and all("restored" in line for line in restored)


@pytest.mark.parametrize("place", ["plain", "ho#me", "a home", "100%"])
def test_artifacts_come_back_by_the_names_that_they_went_by(tmp_path: Path, place: str) -> None:
    (tmp_path / place).mkdir()
    uri = f"sqlite:///{tmp_path}/{place}/mlflow.db"
    run_id = open_campaign_run(uri, "aot", "key", "name", {})
    names = ("a#b.txt", "a%20b.txt", "a b.txt", "100%.txt", "%23.txt", "sub#x/q?.txt", "é.txt")
    (tmp_path / "out" / "sub#x").mkdir(parents=True)
    for name in names:
        (tmp_path / "out" / name).write_text(name)
    log_artifact(uri, run_id, tmp_path / "out", "report")
    (tmp_path / "back").mkdir()
    for name in names:
        back = fetch_artifact(uri, run_id, f"report/{name}", tmp_path / "back")
        assert (back.name, back.read_text()) == (Path(name).name, name)
    whole = fetch_artifact(uri, run_id, "report", tmp_path / "back")
    assert {path.relative_to(whole).as_posix() for path in whole.rglob("*.txt")} == set(names)
    for wrong in ("report/nothing", "../../../mlflow.db"):
        with pytest.raises(FileNotFoundError, match="has no artifact"):
            fetch_artifact(uri, run_id, wrong, tmp_path / "back")


def test_a_file_that_cannot_be_made_is_told() -> None:
    if os.geteuid() == 0:
        with pytest.raises(TrackingError, match=r"MLflow's database /proc/mlflow/mlflow.db: "):
            prepare("sqlite:////proc/mlflow/mlflow.db")
    else:
        with pytest.raises(TrackingError, match="make it writable for this user"):
            prepare("sqlite:////mlflow-nobody/mlflow.db")
