"""What a user asks of vLLM: benchmarks by `aot bench`, and a round of attacks on a Defender that it serves."""

import base64
import io
import json
from pathlib import Path

import httpx
import pytest
from PIL import Image
from typer.testing import CliRunner

from aot_core.commands.cli import app
from aot_core.contracts.attacker_round import OpponentSettings
from aot_core.contracts.benchmarks import EndpointSettings
from aot_core.engine.runner import execute
from aot_core.stages.helpers.opponent import EndpointDefender
from aot_core.store import LocalStore
from tests.evaluation.benchmarks.conftest import write_table
from tests.stages.helpers.test_opponent import spec
from tests.vllm.conftest import ARGUMENTS, asked

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(3600)]


@pytest.fixture
def benchmarks(tmp_path: Path) -> Path:
    """POPE as it is published, with twenty scenes of the Defender's own world."""
    rows: list[dict[str, object]] = []
    for number, (picture, question) in enumerate(asked(20)):
        buffer = io.BytesIO()
        picture.save(buffer, format="PNG")
        row = {"index": number, "question": question.text, "answer": ("Yes", "No")[number % 2], "category": "random"}
        rows.append({**row, "image": base64.b64encode(buffer.getvalue()).decode()})
    folder = tmp_path / "benchmarks"
    folder.mkdir()
    write_table(folder / "POPE.tsv", rows)
    return folder


def bench(folder: Path, home: Path, *arguments: str) -> tuple[list[object], dict[str, float]]:
    """What was answered, and the figures."""
    command = ["bench", "run", str(folder), "--name", "pope", "--samples", "1", "--temperature", "0"]
    done = CliRunner().invoke(app, [*command, "--max-new-tokens", "16", "--home", str(home), *arguments])
    assert done.exit_code == 0, done.output
    (answers,) = home.rglob("answers.jsonl")
    (figures,) = home.rglob("figures.json")
    _, *said = map(json.loads, answers.read_text().splitlines())
    return sorted(said), json.loads(figures.read_text())["pope"]


def test_aot_bench_says_the_same_of_both_engines(served: EndpointSettings, benchmarks: Path, tmp_path: Path) -> None:
    ours = bench(benchmarks, tmp_path / "ours", "--defender", "aot-tiny-vl")
    assert len(ours[0]) == 20
    endpoint = ["--endpoint", str(served.url), "--model", served.model]
    assert bench(benchmarks, tmp_path / "endpoint", *endpoint) == ours
    started = [f"--vllm={argument}" for argument in ARGUMENTS]
    assert bench(benchmarks, tmp_path / "vllm", "--defender", "aot-tiny-vl", *started) == ours


def answered(served: EndpointSettings) -> float:
    """How many requests the server has answered by its own count."""
    told = httpx.get(str(served.url).removesuffix("/v1") + "/metrics", trust_env=False).text
    lines = [line for line in told.splitlines() if line.startswith("vllm:request_success_total")]
    return sum(float(line.rpartition(" ")[2]) for line in lines)


def test_an_attacker_round_is_played_against_it(served: EndpointSettings, tmp_path: Path) -> None:
    before = answered(served)
    opponent = OpponentSettings.model_validate(served.model_dump())
    record = execute(spec(LocalStore(tmp_path / "store"), tmp_path / "inputs", opponent)).record
    assert record is not None and record.outputs["edits"] == 16 and record.outputs["valid"] > 0
    # 24 clean scenes and what is fair of 16 edits, each asked k = 3 times.
    assert answered(served) - before >= 72 + 3 * record.outputs["valid"]


def test_pictures_are_read_before_several_threads_share_them(served: EndpointSettings, tmp_path: Path) -> None:
    picture, question = asked(1)[0]
    picture.resize((640, 640), Image.Resampling.NEAREST).save(tmp_path / "scene.png")
    who = EndpointDefender(OpponentSettings.model_validate(served.model_dump()), tmp_path / "scratch")
    with Image.open(tmp_path / "scene.png") as unread:
        (said,) = who.answer([unread], [question], samples=16, temperature=0.0, seed=0)
    assert len(said) == 16 and len(set(said)) == 1
