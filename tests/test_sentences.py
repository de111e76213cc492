"""Whatever is wrong is told in a sentence, with an exit code that means something, and without a traceback."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from aot_core.commands.cli import app
from aot_core.commands.errors import exit_code, is_fault, keep_traceback, sentence
from aot_core.contracts.base import Frozen
from aot_core.contracts.errors import StageOutOfMemoryError

ROOT = Path(__file__).parents[1]
SMOKE = str(ROOT / "configs" / "smoke.toml")
NO_TRACE = ("Traceback", "pydantic", "input_value")


def refused(*arguments: str) -> str:
    """What a command says that ends with 2, on one line."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "execve", lambda *_: pytest.fail("it was let through, and would have become another program"))
        done = CliRunner().invoke(app, arguments)
    told = done.output
    assert done.exit_code == 2, (done.exit_code, told, done.exception)
    assert isinstance(done.exception, SystemExit)
    assert not any(word in told for word in NO_TRACE), told
    return " ".join(told.replace("│", " ").split())


def short(value: object) -> str:
    return str(value)[:50]


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("curate=5", "curate: this is a section"),
        ("prepare_data=true", "prepare_data: this is a section"),
        ("seed=12345678901234567890", "seed: Input should be less than or equal to 4294966"),
        ("rounds=1000", "rounds"),
        ("attacker_round.updates=1000000000000", "attacker_round.updates"),
        ("evaluate.samples=1000000000000", "evaluate.samples"),
        ("run.threads=1000000000000", "run.threads"),
        ("promotion.approval_hours=1e300", "promotion.approval_hours"),
        ('models.attacker=""', "models.attacker: String should have at least 1 character"),
        ("models.defender=/etc", "models.defender: model folder '/etc' holds no model"),
        ("models.defender=" + "x" * 300, "models.defender: model folder"),
        ("run.store=s3:/b/x", "run.store: write s3://BUCKET/PREFIX"),
        ("run.store=ftp://x/y", "run.store"),
        ('run.store=""', "run.store"),
        ("name=" + "n" * 300, "name"),
        ("x=" + "[" * 3000, "'x': brackets are nested too deeply"),
        ("seed=" + "9" * 5000, "seed"),
        ('source_folder="a\\u0000b"', "source_folder"),
        ("promotion.gate.benchmark_margins={vstar = 2}", "promotion.gate.benchmark_margins"),
        ("source_folder=/etc/passwd", "source_folder: '/etc/passwd' is not a folder"),
        ("benchmark_folder=/proc/nope", "benchmark_folder: '/proc/nope' is not a folder"),
        ("run.accelerate=/etc", "run.accelerate: '/etc' is not a file"),
        ("source_folder=~nobody-there/x", "source_folder"),
        ("promotion.webhook=env:AOT_NO_SUCH_VARIABLE", "AOT_NO_SUCH_VARIABLE, which is not set"),
    ],
    ids=short,
)
def test_a_wrong_field_is_named_before_anything_starts(override: str, words: str, tmp_path: Path) -> None:
    assert words in refused("run", SMOKE, "--home", str(tmp_path), "--set", override)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("field", ["defender_round.rewards", "attacker_round.reward.terms"])
def test_code_that_is_not_allowed_is_told(field: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AOT_ALLOWED_CODE", "ours")
    term = f'{field}=[{{name = "os:system", weight = 1}}]'
    told = refused("run", SMOKE, "--home", str(tmp_path), "--set", term)
    assert "AOT_ALLOWED_CODE" in told and f"{field}: 'os:system'" in told


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\x89PNG\r\n\x1a\n\x00\x00", "is not UTF-8"),
        ('name = "x"'.encode("utf-16"), "UTF-16"),
        ('name = "x" # Müll'.encode("latin-1"), "line 1 is not UTF-8 (byte 0xfc)"),
        (b"x = " + b"[" * 3000, "nested too deeply"),
        (b"x = " + b"9" * 5000, "not valid TOML"),
        (b"", "name: Field required"),
    ],
    ids=["binary", "utf-16", "latin-1", "brackets", "digits", "empty"],
)
def test_a_file_that_is_no_config_is_told_so(tmp_path: Path, content: bytes, words: str) -> None:
    config = tmp_path / "c.toml"
    config.write_bytes(content)
    assert words in refused("run", str(config), "--dry-run")


def test_a_byte_order_mark_does_no_harm(tmp_path: Path) -> None:
    config = tmp_path / "c.toml"
    config.write_bytes(b"\xef\xbb\xbf" + Path(SMOKE).read_bytes())
    assert CliRunner().invoke(app, ["run", str(config), "--dry-run"]).exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "c" * 300 + ".toml"], "cannot be read"),
        (["run", "/etc"], "is no file"),
        (["run", SMOKE, "--home", ""], "the name is empty"),
        (["run", SMOKE, "--home", "/etc/passwd"], "is a file"),
        (["run", SMOKE, "--home", "/etc/passwd/below"], "is a file"),
        (["run", SMOKE, "--home", "x" * 300], "too long"),
        (["run", SMOKE, "--device", "tpu"], "'auto', 'cpu', 'cuda'"),
        (["run", SMOKE, "--launcher", "slurm"], "'kubernetes'"),
        (["run", SMOKE, "--store", "s3:/b/x"], "two slashes"),
        (["pool", "--store", "/etc/passwd"], "store '/etc/passwd' is a file; name the folder"),
        (["pool", "--store", ""], "give a folder"),
        (["store", "gc", "--keep-days", "inf"], "keep-days"),
        (["store", "gc", "--keep-days", "nan"], "keep-days"),
        (["plan", SMOKE, "--peak-tflops", "nan"], "peak-tflops"),
        (["data", "validate", "/proc/nope", "--min-ssim", "7"], "min-ssim"),
        (["data", "map", SMOKE, "--runner", "spark"], "'dask'"),
        (["data", "show", "/proc/nope"], "/proc/nope"),
        (["bench", "verify", "/proc/nope"], "is not a folder"),
        (["bench", "run", "/proc/nope", "--name", "../../x", "--defender", "aot-tiny-vl"], "are unknown or repeat"),
        (
            ["bench", "run", "/proc/nope", "--name", "pope", "--endpoint", "notaurl", "--model", "m"],
            "starts with http://",
        ),
        (
            ["bench", "run", "/proc/nope", "--name", "pope", "--endpoint", "http://u:hid@h/v1", "--model", "m"],
            "credentials",
        ),
        (["reevaluate", "--threads", "0", "--home", "/tmp"], "threads"),
        (["setup", "--gpus", "1000000000000"], "gpus"),
    ],
    ids=lambda value: short(" ".join(value)) if isinstance(value, list) else "",
)
def test_a_wrong_argument_is_told(
    arguments: list[str], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    told = refused(*arguments)
    assert words in told and "hid@" not in told


def test_a_resolution_that_is_no_multiple_is_told(tmp_path: Path) -> None:
    picture = ["attack", str(tmp_path / "p.png"), "--question", "Is it?", "--answer", "yes"]
    told = refused(*picture, "--output", str(tmp_path / "o"), "--resolution", "17")
    assert "resolution: Input should be a multiple of 16 (given: 17)" in told


class Settings(Frozen):
    n: int


def test_every_kind_of_error_has_its_code_and_sentence() -> None:
    with pytest.raises(ValueError) as caught:
        Settings(n="https://u:hunter2@h")  # pyright: ignore[reportArgumentType]
    told = sentence(caught.value)
    assert told.startswith("Settings is not usable:\n  n: ") and "hunter2" not in told
    assert "hunter2" not in str(caught.value)
    assert sentence(FileNotFoundError(2, "No such file or directory", "x")).startswith("x: No such file")
    assert exit_code(StageOutOfMemoryError("m")) == 3 and exit_code(MemoryError()) == 3
    assert exit_code(KeyboardInterrupt()) == 130 and exit_code(OSError(28, "full")) == 2
    assert is_fault(KeyError("x")) and exit_code(KeyError("x")) == 70


def test_a_traceback_is_for_who_asks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def broken(_root: Path, **_: object) -> None:
        raise KeyError("a bug")

    monkeypatch.setattr("aot_core.commands.status.print_status", broken)
    done = CliRunner().invoke(app, ["status", "--home", str(tmp_path)])
    assert done.exit_code == 70 and "a bug" in done.stderr and "AOT_DEBUG=1" in done.stderr
    done = CliRunner().invoke(app, ["--debug", "status", "--home", str(tmp_path)])
    assert isinstance(done.exception, KeyError)
    kept = keep_traceback(KeyError("x"), tmp_path / "faults")
    assert kept is not None and kept.stat().st_mode & 0o777 == 0o600 and "KeyError" in kept.read_text()


def aot(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "LC_", "LANG"))}
    return subprocess.run(
        [sys.executable, "-m", "aot_core.commands.cli", *arguments],
        cwd=ROOT,
        env=kept | environment,
        capture_output=True,
        encoding="utf-8",
        check=False,
        timeout=200,
    )


def test_a_c_locale_reads_and_writes_utf_8(tmp_path: Path) -> None:
    config = tmp_path / "ü.toml"
    prompt = "weiter übermalt …"
    config.write_text(f'{Path(SMOKE).read_text()}\n[prepare_data.extension]\neditor_prompt = "{prompt}"\n', "utf-8")
    done = aot("run", str(config), "--dry-run", LC_ALL="C", PYTHONCOERCECLOCALE="0", PYTHONUTF8="0")
    assert done.returncode == 0, done.stderr
    assert prompt in done.stdout


def test_a_flow_tells_a_sentence_too(tmp_path: Path) -> None:
    """A store that nobody serves is found out inside the flow, by the real command."""
    away = ["run.store=s3://bucket/x", "run.s3.endpoint_url=http://127.0.0.1:1", "run.s3.patience=0"]
    overrides = [part for one in away for part in ("--set", one)]
    keys = {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "y"}
    done = aot("run", SMOKE, "--home", str(tmp_path), *overrides, **keys)
    said = done.stdout + done.stderr
    assert done.returncode == 2, said
    assert "does run.s3.endpoint_url name it?" in said
    assert "Traceback" not in said and len(said.splitlines()) < 8
    assert not list((tmp_path / "handover").iterdir()), "the config was removed once it was read"


def test_a_server_that_is_late_is_no_fault_of_ours(tmp_path: Path) -> None:
    """A second is too short for any start of Prefect's server."""
    done = aot("run", SMOKE, "--home", str(tmp_path), PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS="1")
    said = done.stdout + done.stderr
    assert done.returncode == 2, said
    assert "did not answer within 1 s" in said and "PREFECT_API_URL" in said
    assert "Traceback" not in said and "fault of aot" not in said


def test_sixteen_hundred_adversaries_reach_the_flow(tmp_path: Path) -> None:
    """More than one argument of a process, or one parameter of MLflow, can hold."""
    names = ", ".join(f'"aot://attacker_round/{number:064x}"' for number in range(1600))
    config = tmp_path / "many.toml"
    config.write_text(f'adversaries = [{names}]\nstop_after = "prepare_data"\n{Path(SMOKE).read_text()}')
    done = aot("run", str(config), "--home", str(tmp_path / "home"))
    assert done.returncode == 0, done.stdout + done.stderr
    (summary,) = (tmp_path / "home" / "campaigns").glob("smoke-*/summary.json")
    assert f"{1599:064x}" in summary.read_text()


def test_a_server_that_does_not_answer_is_told(tmp_path: Path) -> None:
    done = aot("setup", "--gpus", "1", "--home", str(tmp_path), PREFECT_API_URL="http://127.0.0.1:1/api")
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr and "onnect" in done.stderr
