"""A promotion's smoke test in a real container: what the orchestrator's image, without torch, relies on."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import pytest
from mlflow.models import infer_signature

from aot_core.contracts.errors import LauncherError
from aot_core.contracts.launch import DockerSettings
from aot_core.contracts.spec import Place, TrackingTarget
from aot_core.home import Home
from aot_core.launch.errand import run_errand
from aot_core.promotion.container_smoke import ContainerSmoke
from aot_core.tracking.registry import lent_tracking_uri
from aot_core.tracking.smoke import SmokeError

pytestmark = [pytest.mark.docker, pytest.mark.timeout(900)]

MODEL_CODE = """
import pandas as pd
import torch
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel

class Answers(PythonModel):
    def load_context(self, context):
        self.told = context.model_config["told"]
        if self.told == "broken":
            raise RuntimeError("its weights are gone")

    def predict(self, model_input: pd.DataFrame):
        return pd.DataFrame([{"letter": "A", "answer": "yes", "completion": f"{self.told} {torch.ones(2).sum():.0f}"}])

set_model(Answers())
"""


@pytest.fixture
def place(tmp_path: Path) -> Place:
    home = Home(tmp_path / "home")
    home.create()
    uri = f"sqlite:///{home.mlflow_folder / 'mlflow.db'}"
    return Place(store=str(home.store), home=str(home.root), tracking=TrackingTarget(uri=uri, run_id=""))


def test_a_model_is_loaded_and_asked_in_a_container(
    place: Place, containers: Callable[[], list[Any]], tmp_path: Path
) -> None:
    assert place.tracking is not None
    uri = place.tracking.uri
    code = tmp_path / "answers.py"
    code.write_text(MODEL_CODE)
    example, answer = pd.DataFrame([{"question": "?"}]), pd.DataFrame([{"completion": "yes"}])
    with lent_tracking_uri(uri):
        experiment = mlflow.create_experiment("smoke", artifact_location=(Path(place.home) / "mlflow" / "a").as_uri())
        for told in ("fine", "broken"):
            with mlflow.start_run(experiment_id=experiment):
                mlflow.pyfunc.log_model(
                    name="m",
                    python_model=str(code),
                    model_config={"told": told},
                    signature=infer_signature(example, answer),
                    input_example=example,
                    registered_model_name="answers",
                    pip_requirements=[],
                )
    smoke = ContainerSmoke(uri, 600, place, DockerSettings())
    assert smoke.check("models:/answers/1") == "fine 2"
    with pytest.raises(SmokeError, match="its weights are gone"):
        smoke.check("models:/answers/2")
    assert containers() == [], "cleared away"


def test_an_errand_that_takes_too_long_is_ended(place: Place, containers: Callable[[], list[Any]]) -> None:
    with pytest.raises(LauncherError, match="has not ended in its container in 3 s"):
        run_errand(place, DockerSettings(), ["-c", "import time; time.sleep(100)"], seconds=3)
    assert containers() == []


def test_an_errand_tells_how_it_ended(place: Place) -> None:
    ended = run_errand(
        place, DockerSettings(), ["-c", "import sys; print('said'); sys.exit('complained')"], seconds=120
    )
    assert (ended.code, ended.said, ended.complained) == (1, "said\n", "complained\n")
