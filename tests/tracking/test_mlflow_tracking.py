import json
from math import inf, nan
from pathlib import Path

import matplotlib.pyplot as plt
import pytest
from mlflow import MlflowClient
from PIL import Image

from aot_core.contracts.artifact import ArtifactRef
from aot_core.tracking.mlflow_tracking import (
    MlflowTracker,
    close_run,
    fetch_artifact,
    log_artifact,
    log_checkpoint,
    log_dataset,
    log_gallery,
    log_stage_summary,
    open_campaign_run,
    open_round_run,
)
from aot_core.tracking.registry import lent_tracking_uri
from aot_core.tracking.story import describe_run, log_table, origin_tags

PARAMS = {"seed": 3, "attacker_round": {"lr": 1e-4, "lora": None}, "wide": {f"p{i}": i for i in range(150)}}


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One database for the module: making its tables takes seconds."""
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db"


def artifacts(uri: str, run_id: str, folder: str = "") -> list[str]:
    return [entry.path for entry in MlflowClient(uri).list_artifacts(run_id, folder or None)]


def test_a_campaign_goes_on_in_its_run(uri: str) -> None:
    client = MlflowClient(uri)
    run_id = open_campaign_run(uri, "continued", "key-1", "tiny-3", PARAMS, {"commit": "abc"})
    run = client.get_run(run_id)
    assert run.info.status == "RUNNING" and run.info.run_name == "tiny-3"
    assert run.data.params["attacker_round.lr"] == "0.0001" and "attacker_round.lora" not in run.data.params
    assert len(run.data.params) == 152
    close_run(uri, run_id, "FAILED")
    assert client.get_run(run_id).info.status == "FAILED"

    assert open_campaign_run(uri, "continued", "key-1", "tiny-3", PARAMS, {"commit": "def"}) == run_id
    run = client.get_run(run_id)
    assert run.info.status == "RUNNING" and run.data.tags["commit"] == "def"
    assert open_campaign_run(uri, "continued", "key-2", "tiny-4", {}) != run_id


def test_artifacts_lie_beside_the_database(uri: str, tmp_path: Path) -> None:
    run_id = open_campaign_run(uri, "placed", "key", "tiny", {})
    (tmp_path / "report.html").write_text("<p>report</p>")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "a.txt").write_text("a")
    log_artifact(uri, run_id, tmp_path / "report.html")
    log_artifact(uri, run_id, tmp_path / "folder", "texts")
    assert artifacts(uri, run_id) == ["report.html", "texts"]
    assert artifacts(uri, run_id, "texts") == ["texts/a.txt"]
    root = Path(uri.removeprefix("sqlite:///")).parent
    assert (root / "artifacts" / "placed" / run_id / "artifacts" / "report.html").is_file()
    with pytest.raises(FileNotFoundError, match="nowhere"):
        log_artifact(uri, run_id, tmp_path / "nowhere")


def test_rounds_are_children_and_are_found_again(uri: str) -> None:
    parent = open_campaign_run(uri, "rounds", "key", "tiny", {})
    first = open_round_run(uri, "rounds", parent, 1)
    second = open_round_run(uri, "rounds", parent, 2)
    close_run(uri, first)
    assert open_round_run(uri, "rounds", parent, 1) == first != second
    tags = MlflowClient(uri).get_run(first).data.tags
    assert tags["mlflow.parentRunId"] == parent and tags["aot.round"] == "1"
    assert MlflowClient(uri).get_run(first).info.status == "RUNNING"


def test_a_stage_logs_live(uri: str, tmp_path: Path) -> None:
    run_id = open_campaign_run(uri, "live", "key", "tiny", {})
    tracker = MlflowTracker(uri, run_id)
    for step in range(3):
        tracker.log_metrics({"attacker/reward": 0.1 * step, "attacker/kl": 1.0}, step)
    tracker.log_metrics({})
    history = MlflowClient(uri).get_metric_history(run_id, "attacker/reward")
    assert [(m.step, m.value) for m in history] == [(0, 0.0), (1, 0.1), (2, 0.2)]
    figure, axes = plt.subplots()
    axes.plot([1, 2])
    tracker.log_figure("curves/reward.png", figure)
    plt.close(figure)
    tracker.log_image("gallery/attacks.png", Image.new("RGB", (8, 8)))
    (tmp_path / "a.txt").write_text("a")
    tracker.log_artifact(tmp_path / "a.txt", "notes")
    assert artifacts(uri, run_id) == ["curves", "gallery", "notes"]


def test_nan_is_refused_and_nothing_of_the_batch_is_logged(uri: str) -> None:
    run_id = open_campaign_run(uri, "nan", "key", "tiny", {})
    with pytest.raises(ValueError, match=r"not finite: attacker/loss = nan, attacker/kl = inf"):
        MlflowTracker(uri, run_id).log_metrics({"fine": 1.0, "attacker/loss": nan, "attacker/kl": inf})
    with pytest.raises(ValueError, match="evaluate/strict"):
        log_stage_summary(uri, run_id, "evaluate", "key", {"strict": nan}, 1.0)
    run = MlflowClient(uri).get_run(run_id)
    assert run.data.metrics == {} and artifacts(uri, run_id) == []


def test_a_stage_is_summed_up_once_for_a_key_and_step(uri: str, tmp_path: Path) -> None:
    run_id = open_campaign_run(uri, "stages", "key", "tiny", {})
    client = MlflowClient(uri)

    def sum_up(key: str, share: float, step: int) -> bool:
        figures = {"strict/clean": share, "n/clean": 10.0}
        return log_stage_summary(uri, run_id, "evaluate", key, figures, 2.5, step, {"clean": share})

    assert [sum_up("a", 0.9, 1), sum_up("a", 0.9, 1), sum_up("b", 0.8, 2)] == [True, False, True]
    assert [(m.step, m.value) for m in client.get_metric_history(run_id, "clean")] == [(1, 0.9), (2, 0.8)]
    run = client.get_run(run_id)
    assert run.data.metrics == {"clean": 0.8} and not any(tag.startswith("aot.stage") for tag in run.data.tags)
    held = json.loads(fetch_artifact(uri, run_id, "stages.json", tmp_path).read_text())
    assert held["stages"]["evaluate.1"] == {
        "key": "a", "seconds": 2.5, "figures": {"strict/clean": 0.9, "n/clean": 10.0}
    }  # fmt: skip
    # A process that died while it wrote: what stood there is logged anew, and nothing stops.
    client.log_text(run_id, '{"stages": {"eval', "stages.json")
    assert sum_up("b", 0.8, 2)


def test_the_pages_tell_who_made_a_run_and_what_came_of_it(uri: str) -> None:
    tags = origin_tags("aot run", "c" * 40)
    run_id = open_campaign_run(uri, "told", "key", "tiny", {}, tags)
    child = open_round_run(uri, "told", run_id, 2, {"attacker_round": {"updates": 3}}, tags)
    describe_run(uri, run_id, "**worst case**")
    for _ in range(2):
        log_table(uri, run_id, "accuracy", [{"round": 1, "strict": 90.0}, {"round": 2, "strict": 91.0}])
    client = MlflowClient(uri)
    run = client.get_run(run_id)
    assert run.data.tags["mlflow.note.content"] == "**worst case**"
    assert run.data.tags["mlflow.source.name"] == "aot run" and run.data.tags["mlflow.user"]
    assert run.data.tags["mlflow.source.git.commit"] == "c" * 40
    with lent_tracking_uri(uri):
        table = client.load_table(run.info.experiment_id, "tables/accuracy.json", [run_id])
    assert table.to_dict("list") == {"round": [1, 2], "strict": [90.0, 91.0]}
    assert json.loads(run.data.tags["mlflow.loggedArtifacts"]) == [{"path": "tables/accuracy.json", "type": "table"}]
    assert client.get_run(child).data.params == {"round": "2", "attacker_round.updates": "3"}
    experiment = client.get_experiment_by_name("told")
    assert experiment is not None and experiment.tags["mlflow.experimentKind"] == "custom_model_development"


def test_benchmarks_categories_become_names_that_mlflow_takes(uri: str) -> None:
    run_id = open_campaign_run(uri, "names", "key", "tiny", {})
    MlflowTracker(uri, run_id).log_metrics({"bench/mmstar/strict/accuracy/science & technology": 0.5})
    assert MlflowClient(uri).get_run(run_id).data.metrics == {"bench/mmstar/strict/accuracy/science _ technology": 0.5}


def test_a_checkpoint_is_a_logged_model_once(uri: str) -> None:
    run_id = open_campaign_run(uri, "checkpoints", "key", "tiny", {})
    artifact = ArtifactRef(uri="aot://defender_round/" + "0" * 64, sha256="f" * 64)
    model_id = log_checkpoint(uri, run_id, "defender-1", artifact, {"clean": 0.9}, {"round": "1"}, step=1)
    assert log_checkpoint(uri, run_id, "defender-1", artifact) == model_id
    assert log_checkpoint(uri, run_id, "defender-1", artifact.model_copy(update={"sha256": "e" * 64})) != model_id
    client = MlflowClient(uri)
    model = client.get_logged_model(model_id)
    assert str(model.status) == "READY" and model.source_run_id == run_id
    assert model.tags["aot.artifact_uri"] == artifact.uri and model.tags["round"] == "1"
    assert [(m.key, m.value) for m in model.metrics or []] == [("clean", 0.9)]
    outputs = client.get_run(run_id).outputs
    assert outputs is not None and model_id in [output.model_id for output in outputs.model_outputs]


def test_a_gallery_has_one_picture_a_step(uri: str) -> None:
    run_id = open_campaign_run(uri, "galleries", "key", "tiny", {})
    picture = Image.new("RGB", (20, 10))
    assert [log_gallery(uri, run_id, "attacks", picture, step) for step in (1, 2, 2)] == [True, True, False]
    names = [path for path in artifacts(uri, run_id, "images") if path.endswith(".png")]
    assert [name.split("+")[:3] for name in names] == [["images/attacks", "step", step] for step in "12"]


def test_a_checkpoint_that_a_killed_process_began_is_completed(uri: str) -> None:
    run_id = open_campaign_run(uri, "begun", "key", "tiny", {})
    client = MlflowClient(uri)
    tags = {"aot.artifact_sha256": "f" * 64}
    begun = client.create_logged_model(client.get_run(run_id).info.experiment_id, "defender-1", run_id, tags)
    artifact = ArtifactRef(uri="aot://defender_round/" + "0" * 64, sha256="f" * 64)
    assert log_checkpoint(uri, run_id, "defender-1", artifact, {"clean": 0.9}) == begun.model_id
    model = client.get_logged_model(begun.model_id)
    assert str(model.status) == "READY" and [m.key for m in model.metrics or []] == ["clean"]


def test_a_run_leads_to_its_data_set_and_that_to_its_sources(uri: str) -> None:
    run_id = open_campaign_run(uri, "lineage", "key-lineage", "tiny-4", {})
    address, sha256, sources = "aot://prepare_data/" + "1" * 64, "2" * 64, {"source": "3" * 64, "defender": "hub/name"}
    artifact = ArtifactRef(uri=address, sha256=sha256)
    assert log_dataset(uri, run_id, "prepare_data-0", artifact, sources, {"pairs": 12})
    assert not log_dataset(uri, run_id, "prepare_data-0", artifact, sources, {"pairs": 12})
    (found,) = MlflowClient(uri).get_run(run_id).inputs.dataset_inputs
    assert (found.dataset.name, found.dataset.digest) == ("prepare_data-0", sha256[:36])
    assert json.loads(found.dataset.source) == {"uri": address, "sha256": sha256, "made_of": sources}
    assert json.loads(found.dataset.profile) == {"pairs": 12}
