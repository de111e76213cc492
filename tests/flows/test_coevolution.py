"""The whole campaign for real: run to the end, run again, killed half way, refused."""

import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from aot_core.contracts.summary import CampaignSummary
from aot_core.data.dataset import read_samples
from aot_core.evaluation.approval_page import approval_page
from aot_core.store import LocalStore
from tests.docs_commands import ON_A_FINISHED_CAMPAIGN

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.timeout(900)

ROUND_STAGES = ("attacker_round", "curate", "defender_round", "evaluate")


def aot(home: Path, *arguments: str, config: str = "smoke") -> "subprocess.Popen[str]":
    command = [
        sys.executable,
        "-m",
        "aot_core",
        "run",
        f"configs/{config}.toml",
        "--home",
        str(home),
        *arguments,
    ]
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
    # Nobody led before it: the base was its bar, on the same questions.
    assert re.fullmatch(
        r"there is no champion yet; clean [\d.]+ against the base's [\d.]+; worst case .*; promoted",
        summary.promotion_reason,
    )
    decision = summary.decision
    assert decision is not None and [test.name for test in decision.tests] == ["floor/clean", "floor/worst_case"]
    assert decision.figures["base/n/clean"] == decision.figures["challenger/n/clean"]
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
    heads = runs["smoke"].data.metrics
    wanted = ("worst", "clean", "semantic", "own_attacker", "attacker_success", "lessons_kept")
    assert {f"headline/{name}" for name in wanted} <= set(heads) and len(runs["smoke"].data.params) < 100
    assert len(heads) <= 16 and not any(tag.startswith("aot.stage") for tag in runs["smoke"].data.tags)
    assert runs["smoke"].data.tags["aot.verdict"] in ("promoted", "not promoted")
    assert "orst case" in runs["smoke"].data.tags["mlflow.note.content"]
    assert runs["round-1"].data.params["round"] == "1" and "attacker_round.updates" in runs["round-1"].data.params
    card = client.get_model_version_by_alias("aot-defender", "champion").description
    assert card is not None and "Worst case" in card and "aot promote" in card and "generated" in card
    assert "mlflow models serve" in card and summary.key[:12] in card
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


def test_a_second_run_keeps_the_decision_that_made_its_champion(finished: Path) -> None:
    """What it was compared with then, and not that it leads already."""
    before = read_summary(finished).decision
    assert before is not None and before.promote and "no champion yet" in before.reason
    finish(aot(finished))
    assert read_summary(finished).decision == before


def test_the_documented_commands_run_on_it(finished: Path, tmp_path: Path) -> None:
    """As README and docs write them, in a folder whose `.aot` is the campaign's home."""
    (tmp_path / ".aot").symlink_to(finished)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    for command in ON_A_FINISHED_CAMPAIGN:
        done = subprocess.run(
            command, shell=True, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        assert done.stdout


def test_what_is_damaged_in_the_store_is_told_and_made_again(finished: Path) -> None:
    before = results(finished)
    steps = {step.record.stage: step.record for step in read_summary(finished).steps}
    place = {stage: finished / "store" / stage / record.key for stage, record in steps.items()}
    os.truncate(place["attacker_round"] / "record.json", 50)
    (place["warm_start_defender"] / "manifest.json").unlink()
    (place["curate"] / "files" / "funnel.json").unlink()
    os.mkfifo(place["curate"] / "files" / "funnel.json")
    said = finish(aot(finished))
    assert results(finished) == before
    assert said.count("set aside as") == 2 and said.count("written again from its files") == 1, said
    assert "Traceback" not in said
    made = {step.record.stage for step in read_summary(finished).steps if not step.reused}
    assert made == {"attacker_round", "curate"}


def command(home: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """`aot` with a home, to its end."""
    return subprocess.run(
        [sys.executable, "-m", "aot_core", *arguments, "--home", str(home)],
        cwd=ROOT,
        env=os.environ | {"COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_prefect_and_mlflow_show_the_report(finished: Path) -> None:
    from mlflow import MlflowClient

    with sqlite3.connect(finished / "prefect" / "prefect.db") as database:
        keys = {key for (key,) in database.execute("select key from artifact where key is not null")}
        tasks = {name for (name,) in database.execute("select name from task_run")}
        lines = [line for (line,) in database.execute("select message from log where name = 'aot.campaign'")]
    assert {"evaluate", "evaluate 1", "evaluate the base", "attacker_round 1"} <= tasks, "no two evaluations look alike"
    assert any("8 of 8" in line for line in lines) and not any("[dim]" in line for line in lines)
    assert {"report-smoke", "accuracy-smoke", "gate-smoke"} <= keys
    summary = read_summary(finished)
    client = MlflowClient(summary.mlflow_uri)
    held = {
        entry.path
        for folder in ("", "report", "promotion")
        for entry in client.list_artifacts(summary.mlflow_run_id, folder)
    }
    assert {"report.html", "report/report.md", "report/accuracy.png", "report/crossplay.png"} <= held
    assert {"promotion/decision.json", "promotion/decision.html", "promotion/exam.json"} <= held


def test_its_promotion_is_an_event_on_the_server(finished: Path) -> None:
    with sqlite3.connect(finished / "prefect" / "prefect.db") as database:
        found = database.execute("SELECT payload FROM events WHERE event = 'aot.promotion.done'").fetchall()
    (payload,) = (json.loads(text) for (text,) in found)
    assert payload["message"].startswith("aot-defender: version 1 leads now, in place of none")
    assert payload["version"].endswith("/#/models/aot-defender/versions/1") and payload["action"] == "promote"


def test_whoever_is_asked_sees_edits_side_by_side(finished: Path) -> None:
    summary = read_summary(finished)
    assert summary.decision is not None
    page = approval_page(summary, summary.decision, {"MLflow run": "http://127.0.0.1:5000/", "file": "decision.html"})
    assert "| floor/clean | " in page and "| worst case | " in page and "[MLflow run](" in page and "file" not in page
    picture = r"\(data:image/webp;base64,(\S+)\)"
    pairs = re.findall(rf"\| !\[before\]{picture} \| !\[after\]{picture} \|", page)
    (curated,) = (step.record for step in summary.steps if step.record.stage == "curate")
    samples = read_samples(LocalStore(finished / "store").fetch(curated.artifact))
    assert len(pairs) == min(6, len({sample.scene.scene_id for sample in samples}))
    assert all(before != after for before, after in pairs) and len(page) < 150_000


def test_a_version_is_measured_again_to_the_last_item(finished: Path) -> None:
    from aot_core.home import Home

    # As the weekly deployment does it.
    code = (
        "from flows.scheduled import reevaluation\n"
        f'state = reevaluation("configs/smoke.toml", [], "{finished}", return_state=True)\n'
        "print(state.type.value, state.message)"
    )
    environment = os.environ | Home(finished).environment()
    again = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    found = re.search(r"COMPLETED version 1: all (\d+) items and every figure are unchanged", again.stdout)
    assert found is not None, again.stdout + again.stderr
    evaluation = read_summary(finished).find("evaluate", 1)
    assert evaluation is not None and int(found[1]) == sum(evaluation.outputs["n"].values())
    # Weights that somebody touched in the registry are not measured, whatever they would answer.
    (weights,) = (finished / "mlflow").rglob("artifacts/model/config.json")
    whole = weights.read_text()
    weights.write_text(whole + "\n")
    touched = command(finished, "reevaluate")
    weights.write_text(whole)
    assert touched.returncode == 2 and "the registry's weights are not those that were measured" in touched.stderr
    assert touched.stderr.startswith("aot-defender version 1: are the registry's weights"), "it says what it is at"


def rival_settings(adversary: str) -> list[str]:
    """Another campaign, which starts from an Attacker of the first one's."""
    quick = ["attacker_round.updates=1", "attacker_round.candidates=40", "attacker_round.probe=4", "curate.scenes=12"]
    settings = ['name="rival"', f'adversaries=["{adversary}"]', 'attacker_start="newest"', *quick]
    return [word for setting in settings for word in ("--set", setting)]


def test_a_rival_campaign_is_refused_forced_and_rolled_back(finished: Path) -> None:
    listed = command(finished, "pool")
    (adversary,) = re.findall(r"aot://attacker_round/[0-9a-f]{64}", listed.stdout)
    said = finish(aot(finished, *rival_settings(adversary)))
    (file,) = (finished / "campaigns").glob("rival-*/summary.json")
    rival = CampaignSummary.model_validate_json(file.read_bytes())

    # It started from the other campaign's Attacker, and every evaluation met that one too.
    assert "warm_start_attacker" not in {step.record.stage for step in rival.steps}
    start = read_summary(finished).find("attacker_round", 1)
    attack = rival.find("attacker_round", 1)
    assert start is not None and attack is not None
    assert attack.identity.inputs["attacker"] == start.artifact.sha256
    for number in (0, 1):
        evaluation = rival.find("evaluate", number)
        assert evaluation is not None and evaluation.outputs["n"]["adversary_1"] > 0

    # Eight questions show nothing: refused, the champion untouched, and all of it on record.
    decision = rival.decision
    assert decision is not None and not decision.promote and decision.champion == "1"
    assert decision.lineage["parent"] == "1" and "champion/strict/adversary_1" in decision.figures
    assert rival.aliases == ("challenger",) and "refused by the gate" in rival.promotion_reason, said
    refused = command(finished, "promote")
    assert refused.returncode == 2 and "the gate refused version 2" in refused.stderr
    assert "ask more questions" in refused.stderr and "evaluate.limit" in refused.stderr
    assert "ask more questions" in rival.promotion_reason
    assert command(finished, "promote", "--force").returncode == 2, "not without saying why"
    forced = command(finished, "promote", "--force", "--version", "2", "--why", "to see it")
    assert "version 2 is the champion now, replacing version 1" in forced.stdout, forced.stderr
    back = command(finished, "rollback", "--why", "seen")
    assert "version 1 is the champion again, replacing version 2" in back.stdout, back.stderr
    history = command(finished, "history").stdout
    for told in ("promote refused", "force done", "rollback done", "to see it", "champion: version 1"):
        assert told in history


def test_a_champion_that_somebody_deleted_is_told_everywhere(finished: Path) -> None:
    from mlflow import MlflowClient

    from aot_core.home import Home

    start = read_summary(finished).find("attacker_round", 1)
    assert start is not None
    MlflowClient(read_summary(finished).mlflow_uri).delete_model_version("aot-defender", "1")
    gone = "version 1, which leads by the ledger, is gone from MLflow's registry"
    assert gone in command(finished, "status").stdout.replace("\n", " ")
    history = command(finished, "history")
    assert history.returncode == 1 and gone in history.stderr
    back = command(finished, "rollback")
    assert back.returncode == 2 and "no version that led before version 1" in back.stderr
    code = (
        "from flows.scheduled import maintenance\n"
        f'state = maintenance("configs/smoke.toml", [], "{finished}", 30, False, return_state=True)\n'
        "print(state.type.value, state.message)"
    )
    environment = os.environ | Home(finished).environment()
    kept = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert "FAILED" in kept.stdout and gone in kept.stdout, kept.stdout + kept.stderr
    # The gate lets nobody in by the door that is open now.
    said = finish(aot(finished, *rival_settings(start.artifact.uri)))
    assert gone in said and "refused by the gate" in said
    (file,) = (finished / "campaigns").glob("rival-*/summary.json")
    decision = CampaignSummary.model_validate_json(file.read_bytes()).decision
    assert decision is not None and not decision.promote and gone in decision.reason


def test_the_rest_of_the_matrix_is_what_nobody_played() -> None:
    from aot_core.contracts.artifact import ArtifactRef
    from flows.coevolution import unplayed

    one, two, three = (ArtifactRef(uri=f"aot://attacker_round/{n * 64}", sha256=n * 64) for n in "123")
    assert unplayed([one, two, three]) == {0: {2: two, 3: three}, 1: {3: three}}
    assert unplayed([one]) == unplayed([]) == {}


def kill_in(home: Path, stage: str, round_index: int, after: float = 1) -> None:
    """Start the campaign and kill it, with all its children, so many seconds after a stage has begun."""
    process = aot(home)
    assert process.stdout is not None
    where = f"round {round_index}" if round_index else "start"
    for line in process.stdout:
        if "running" in line and where in line and stage in line:
            break
    else:
        pytest.fail(f"{stage} did not begin")
    time.sleep(after)
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
        # Where the stage before it ran in the same process nothing is left to import, and curate takes half a second.
        kill_in(tmp_path, step.record.stage, step.round, min(1, step.record.seconds / 3))
        assert len(read_summary(tmp_path).steps) == done, "what was finished before, and no more"
    finish(aot(tmp_path))
    assert_ended_like(tmp_path, finished)


def test_what_people_get_wrong_is_said_in_a_line(tmp_path: Path) -> None:
    process = aot(tmp_path, "--set", "models.defender=./nowhere")
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "./nowhere" in said and "Traceback" not in said
    assert not list(tmp_path.iterdir()), "nothing was begun"
