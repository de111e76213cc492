"""The whole campaign for real: run to the end, run again, killed half way, refused."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from aot_core.contracts.summary import CampaignSummary

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.timeout(900)

ROUND_STAGES = ("attacker_round", "curate", "defender_round", "evaluate")


def aot(home: Path, *arguments: str, config: str = "smoke") -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "aot_core.cli", "run", f"configs/{config}.toml", "--home", str(home), *arguments]
    environment = {
        key: value for key, value in os.environ.items() if not key.startswith(("PREFECT_", "MLFLOW_TRACKING"))
    }
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment | {"COLUMNS": "200"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def finish(process: "subprocess.Popen[str]") -> str:
    said, _ = process.communicate(timeout=600)
    assert process.returncode == 0, said
    return said


def read_summary(home: Path) -> CampaignSummary:
    (file,) = (home / "campaigns").glob("smoke-*/summary.json")
    return CampaignSummary.model_validate_json(file.read_bytes())


def results(home: Path) -> list[tuple[int, str, str, object]]:
    """What a campaign came to, without what may differ: times and places."""
    return [
        (step.round, step.record.key, step.record.artifact.sha256, step.record.outputs)
        for step in read_summary(home).steps
    ]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("finished")
    said = finish(aot(home))
    assert "strict accuracy" in said and "report" in said
    return home


def test_every_stage_ran_and_a_defender_leads(finished: Path) -> None:
    summary = read_summary(finished)
    ran = [(step.round, step.record.stage) for step in summary.steps]
    start = ["prepare_data", "warm_start_attacker", "warm_start_defender", "evaluate"]
    assert ran == [*((0, stage) for stage in start), *((1, stage) for stage in ROUND_STAGES)]
    assert summary.status == "finished"
    assert summary.aliases == ("champion",)
    (report,) = (finished / "campaigns").glob("*/report.html")
    assert "Attacker 1" in report.read_text()


def test_mlflow_holds_a_parent_and_a_child_a_round(finished: Path) -> None:
    from mlflow import MlflowClient

    summary = read_summary(finished)
    client = MlflowClient(summary.mlflow_uri)
    experiment = client.get_experiment_by_name("aot")
    assert experiment is not None
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    assert {"smoke", "round-0", "round-1"} <= set(runs)
    assert {run.info.status for run in runs.values()} == {"FINISHED"}
    live = {key for key in runs["round-1"].data.metrics if key.startswith(("attacker/", "defender/", "eval/"))}
    assert {"attacker/reward", "defender/reward", "eval/clean"} <= live
    models = client.search_logged_models([experiment.experiment_id])
    assert {"attacker-round-1", "defender-round-1", "defender-round-0"} <= {model.name for model in models}


def test_a_model_version_leads_to_its_data(finished: Path) -> None:
    from mlflow import MlflowClient

    summary = read_summary(finished)
    client = MlflowClient(summary.mlflow_uri)
    version = client.get_model_version_by_alias("aot-defender", "champion")
    assert version.run_id == summary.mlflow_run_id
    found = {
        one.dataset.name: json.loads(one.dataset.source) for one in client.get_run(version.run_id).inputs.dataset_inputs
    }
    data = next(step.record.artifact for step in summary.steps if step.record.stage == "prepare_data")
    assert found["prepare_data-0"]["sha256"] == data.sha256 == version.tags["aot.lineage.data"]
    assert found["curate-1"]["made_of"]["dataset"] == data.sha256


def test_three_lines_load_the_champion_and_it_answers(finished: Path) -> None:
    (image, *_) = sorted((finished / "store" / "prepare_data").glob("*/files/data/evaluate/*/*.png"))
    question = "Is there a red ring?\\nA. yes\\nB. no\\nAnswer with \\\\boxed{X}."
    code = (
        "import mlflow\n"
        'model = mlflow.pyfunc.load_model("models:/aot-defender@champion")\n'
        f'print(model.predict({{"image": ["{image}"], "question": ["{question}"]}}).to_json(orient="records"))'
    )
    environment = os.environ | {"MLFLOW_TRACKING_URI": read_summary(finished).mlflow_uri}
    said = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    (answer,) = json.loads(said.stdout.strip().splitlines()[-1])
    assert answer["letter"] in ("A", "B", "", None)
    assert answer["completion"]


def test_a_second_run_reuses_every_stage(finished: Path) -> None:
    before = results(finished)
    said = finish(aot(finished))
    assert all(step.reused for step in read_summary(finished).steps)
    assert results(finished) == before
    assert "running" not in said


def kill_in(home: Path, stage: str, round_index: int) -> None:
    """Start the campaign and kill it, with all its children, a second after a stage has begun."""
    process = aot(home)
    assert process.stdout is not None
    where = f"round {round_index}" if round_index else "start"
    for line in process.stdout:
        if "running" in line and where in line and stage in line:
            break
    else:
        pytest.fail(f"{stage} did not begin")
    time.sleep(1)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def assert_ended_like(home: Path, finished: Path) -> None:
    for mine, theirs in zip(read_summary(home).steps, read_summary(finished).steps, strict=True):
        # Not to the last bit: a matrix library may sum in another order when a tensor lies elsewhere in memory.
        assert mine.record.metrics == pytest.approx(theirs.record.metrics, rel=1e-3, abs=1e-3), mine.record.stage


def test_killed_in_a_stage_and_started_again_it_ends_the_same(finished: Path, tmp_path: Path) -> None:
    kill_in(tmp_path, "attacker_round", 1)
    assert read_summary(tmp_path).status == "running", "it could not say goodbye"
    done = len(read_summary(tmp_path).steps)
    assert done == 4
    said = finish(aot(tmp_path))
    assert [step.reused for step in read_summary(tmp_path).steps] == [True] * done + [False] * 4, said
    assert results(tmp_path)[:done] == results(finished)[:done], "the same bytes"
    assert_ended_like(tmp_path, finished)


@pytest.mark.slow
def test_killed_in_every_stage_in_turn_it_ends_the_same(finished: Path, tmp_path: Path) -> None:
    for done, step in enumerate(read_summary(finished).steps):
        kill_in(tmp_path, step.record.stage, step.round)
        assert len(read_summary(tmp_path).steps) == done, "what was finished before, and no more"
    finish(aot(tmp_path))
    assert_ended_like(tmp_path, finished)


def test_what_people_get_wrong_is_said_in_a_line(tmp_path: Path) -> None:
    process = aot(tmp_path, "--set", "models.defender=./nowhere")
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "./nowhere" in said and "Traceback" not in said
    assert not list(tmp_path.iterdir()), "nothing was begun"
