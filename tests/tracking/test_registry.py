import base64
import io
import random
from pathlib import Path

import mlflow
import pandas as pd
import pytest
from mlflow import MlflowClient
from PIL import Image

from aot_core.contracts.artifact import ArtifactRef, ExternalRef
from aot_core.contracts.learning import DefenderModelSettings, LoraSettings
from aot_core.contracts.scene import Query, Question
from aot_core.data.answers import extract_letter
from aot_core.defender.answering import Defender
from aot_core.defender.checkpoints import load_defender, load_trainable, save
from aot_core.tracking.mlflow_tracking import open_campaign_run
from aot_core.tracking.registry import (
    TrainedDefender,
    find_version,
    get_alias,
    get_champion,
    register_defender,
    set_alias,
    version_metrics,
)

SHA = "a" * 64
QUESTION = "Is there a red ring?\nA. yes\nB. no\nAnswer with \\boxed{X}."
BASE = ExternalRef(name="aot-tiny-vl")
ADDRESS = "aot://defender_round/" + "0" * 64

Registered = tuple[str, str, str]


@pytest.fixture(scope="module")
def registered(tmp_path_factory: pytest.TempPathFactory, untrained_defender: Path) -> Registered:
    """(uri, run id, version) of a registered Defender."""
    uri = f"sqlite:///{tmp_path_factory.mktemp('registry')}/mlflow.db"
    run_id = open_campaign_run(uri, "registry", "key", "tiny", {"seed": 0})
    assert not mlflow.is_tracking_uri_set()
    assert get_champion(uri) is None
    trained = TrainedDefender(
        untrained_defender,
        ArtifactRef(uri=ADDRESS, sha256=SHA),
        BASE,
        metrics={"strict/clean": 0.5},
        tags={"aot.evaluation_set": "s"},
        max_new_tokens=5,
    )
    version = register_defender(uri, run_id, trained)
    assert not mlflow.is_tracking_uri_set()
    set_alias(uri, "champion", version)
    return uri, run_id, version


def test_three_lines_of_python_answer(
    registered: Registered,
    untrained_defender: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    picture = tmp_path / "x.png"
    Image.effect_noise((64, 64), 60).convert("RGB").save(picture)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", registered[0])

    model = mlflow.pyfunc.load_model("models:/aot-defender@champion")
    given = model.predict({"image": [str(picture)], "question": [QUESTION]})

    # The same Defender asked without MLflow between.
    query = Query(kind="existence", target={})
    question = Question(query=query, text="Is there a red ring?", options=("yes", "no"), answer="A")
    assert question.prompt == QUESTION
    defender = Defender.load(str(untrained_defender / "model"), max_new_tokens=5)
    completion = defender.answer([Image.open(picture)], [question], samples=1, temperature=0.0, seed=0)[0][0]
    assert list(given.columns) == ["letter", "answer", "completion"]
    assert given.completion.tolist() == [completion]
    assert given.letter.tolist() == [extract_letter(completion, "AB") or ""]

    encoded = base64.b64encode(picture.read_bytes()).decode()
    rows = pd.DataFrame(
        {
            "image": [str(picture), encoded, f"data:image/png;base64,{encoded}"],
            "question": [QUESTION, "Is there a red ring?", "Is there a red ring?\nA) yes\nB) no"],
            "options": ["", '["yes", "no"]', ""],
        }
    )
    assert model.predict(rows).completion.tolist() == [completion] * 3

    buffer = io.BytesIO()
    Image.new("RGB", (9000, 9000)).save(buffer, format="PNG")
    bomb = base64.b64encode(buffer.getvalue()).decode()
    bad = [
        ({"image": "nowhere.png", "question": QUESTION}, "row 0: image: 'nowhere.png' is neither"),
        ({"image": base64.b64encode(b"not a picture").decode(), "question": QUESTION}, "no readable image"),
        ({"image": bomb, "question": QUESTION}, "limit of 40000000 pixels"),
        ({"image": str(picture), "question": "Is there a red ring?"}, "question has 0 options"),
        ({"image": str(picture), "question": "Which?\nB. yes\nA. no"}, "lettered A, B, C"),
        ({"image": str(picture), "question": "Which?", "options": "yes"}, "not a JSON list"),
    ]
    for row, message in bad:
        with pytest.raises(ValueError, match=message):
            model.predict(pd.DataFrame([row]))


def test_pictures_come_as_text_in_every_usual_form(registered: Registered, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", registered[0])
    model = mlflow.pyfunc.load_model("models:/aot-defender@champion")
    noise = random.Random(1)
    raw: list[bytes] = []
    for _ in range(60):  # the size of the tiny world's: many hold 256 characters and more between two slashes
        picture = Image.new("RGB", (64, 64), (205, 205, 205))
        for _ in range(noise.randrange(5, 60)):
            picture.putpixel((noise.randrange(64), noise.randrange(64)), (noise.randrange(256),) * 3)
        buffer = io.BytesIO()
        picture.save(buffer, format="PNG")
        raw.append(buffer.getvalue())
    plain = [base64.b64encode(content).decode() for content in raw]
    assert any(max(map(len, text.split("/"))) > 255 for text in plain)
    assert len(model.predict(pd.DataFrame({"image": plain, "question": QUESTION}))) == 60
    one = next(content for content in raw if {b"+", b"/"} & {bytes([b]) for b in base64.b64encode(content)})
    forms = [
        base64.b64encode(one).decode(),
        base64.encodebytes(one).decode(),
        base64.b64encode(one).decode() + "\r\n",
        base64.urlsafe_b64encode(one).decode(),
        base64.urlsafe_b64encode(one).decode().rstrip("="),
        "data:image/png;charset=utf-8;base64," + base64.encodebytes(one).decode(),
        "DATA:;base64," + base64.urlsafe_b64encode(one).decode(),
    ]
    told = model.predict(pd.DataFrame({"image": forms, "question": QUESTION})).completion
    assert len(set(told)) == 1
    for wrong, message in (
        ("data:image/png,%89PNG", "a data URI must begin data:image/png;base64,"),
        ("a=b", "neither an existing file nor base64"),
        ("\0", "neither an existing file nor base64"),
        ("nowhere, it is.png", "neither an existing file nor base64"),
        ("", "no readable image"),
    ):
        with pytest.raises(ValueError, match=message):
            model.predict(pd.DataFrame([{"image": wrong, "question": QUESTION}]))


def test_the_same_artifact_is_registered_once(registered: Registered, untrained_defender: Path) -> None:
    uri, run_id, version = registered
    assert (
        register_defender(uri, run_id, TrainedDefender(untrained_defender, ArtifactRef(uri=ADDRESS, sha256=SHA), BASE))
        == version
    )
    assert find_version(uri, SHA) == version and find_version(uri, "b" * 64) is None


def test_the_version_says_what_it_is(registered: Registered) -> None:
    uri, run_id, version = registered
    champion = get_champion(uri)
    assert champion is not None and champion[0] == version
    assert version_metrics(champion[1]) == {"strict/clean": 0.5}
    assert champion[1]["aot.base"] == "aot-tiny-vl" and champion[1]["aot.artifact_sha256"] == SHA
    assert get_alias(uri, "challenger") is None
    found = MlflowClient(uri).get_model_version("aot-defender", version)
    assert found.run_id == run_id and found.tags["aot.evaluation_set"] == "s"
    # Registering leaves the campaign's run as it was.
    assert MlflowClient(uri).get_run(run_id).info.status == "RUNNING"


def test_a_folder_without_weights_is_refused(registered: Registered, tmp_path: Path) -> None:
    empty = TrainedDefender(tmp_path, ArtifactRef(uri=ADDRESS, sha256="c" * 64), BASE)
    with pytest.raises(ValueError, match="holds no `model` and no `adapter`"):
        register_defender(registered[0], registered[1], empty)


def test_an_adapter_is_registered_with_the_name_of_its_base(
    registered: Registered, untrained_defender: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = str(untrained_defender / "model")
    settings = DefenderModelSettings(lora=LoraSettings(rank=2, alpha=4))
    model, processor = load_trainable(None, base, settings, "cpu")
    for name, weight in model.named_parameters():
        if "lora_B" in name:  # zero at first, which changes nothing
            weight.data.normal_()
    save(model, processor, tmp_path, base)
    uri, run_id, _ = registered
    version = register_defender(
        uri, run_id, TrainedDefender(tmp_path, ArtifactRef(uri=ADDRESS, sha256="d" * 64), ExternalRef(name=base))
    )
    picture = tmp_path / "x.png"
    Image.effect_noise((64, 64), 60).convert("RGB").save(picture)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    rows = pd.DataFrame([{"image": str(picture), "question": QUESTION}])
    told = {
        number: mlflow.pyfunc.load_model(f"models:/aot-defender/{number}").predict(rows).completion[0]
        for number in (version, registered[2])
    }
    question = Question(
        query=Query(kind="existence", target={}), text="Is there a red ring?", options=("yes", "no"), answer="A"
    )
    defender = load_defender(tmp_path, base)
    assert told[version] == defender.answer([Image.open(picture)], [question], samples=1, temperature=0.0, seed=0)[0][0]
    assert told[version] != told[registered[2]]
