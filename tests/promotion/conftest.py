"""A registry with small models that really load: what moves the alias does not care what they are models of."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.models import infer_signature

from aot_core.contracts.promotion import Decision, GateSettings
from aot_core.promotion.transaction import Promoter
from aot_core.store import LocalStore
from aot_core.store.ledger import Ledger
from aot_core.tracking.registry import lent_tracking_uri
from aot_core.tracking.smoke import SmokeError

MODEL_CODE = """
import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel

class Answers(PythonModel):
    def load_context(self, context):
        self.told = context.model_config["told"]
        if self.told == "broken":
            raise RuntimeError("its weights are gone")

    def predict(self, model_input: pd.DataFrame):
        return pd.DataFrame([{"letter": "A", "answer": "yes", "completion": self.told}])

set_model(Answers())
"""


class InProcessSmoke:
    """The smoke test of these tests: it really loads and asks, in this process. A process each would take seconds."""

    def __init__(self, uri: str, fails: Callable[[str], bool] = lambda _: False) -> None:
        self.uri, self.fails = uri, fails

    def __enter__(self) -> "InProcessSmoke":
        return self

    def __exit__(self, *_: object) -> None: ...

    def check(self, address: str) -> str:
        if self.fails(address):
            raise SmokeError(f"{address}: does not answer")
        return loads(self.uri, address)


def loads(uri: str, address: str) -> str:
    """Load a model and ask it. Raises SmokeError."""
    with lent_tracking_uri(uri):
        try:
            model = mlflow.pyfunc.load_model(address)
            return str(model.predict(model.input_example)["completion"][0])
        except Exception as error:
            raise SmokeError(f"{address}: {error}") from error


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A registry with versions 1, 2, 3 that answer and 4 that does not load."""
    import pandas as pd

    folder = tmp_path_factory.mktemp("registry")
    uri = f"sqlite:///{folder}/mlflow.db"
    (folder / "answers.py").write_text(MODEL_CODE)
    example = pd.DataFrame([{"question": "?"}])
    signature = infer_signature(example, pd.DataFrame([{"letter": "A", "answer": "yes", "completion": "x"}]))
    client = MlflowClient(uri)
    experiment = client.create_experiment("test", (folder / "artifacts").as_uri())
    client.create_registered_model("aot-defender")
    with lent_tracking_uri(uri):
        for number, told in enumerate(("one", "two", "three", "broken"), start=1):
            with mlflow.start_run(experiment_id=experiment) as run:
                info = mlflow.pyfunc.log_model(
                    name="answers",
                    python_model=str(folder / "answers.py"),
                    model_config={"told": told},
                    signature=signature,
                    input_example=example,
                    pip_requirements=[],
                )
            tags = {"aot.artifact_sha256": f"{number}" * 64}
            client.create_model_version(
                "aot-defender", info.model_uri, run.info.run_id, tags=tags, model_id=info.model_id
            )
    return uri


@pytest.fixture
def promoter(uri: str, tmp_path: Path) -> Promoter:
    """A fresh ledger, and nobody leads."""
    from aot_core.tracking import registry

    for alias in ("champion", "challenger"):
        registry.remove_alias(uri, alias)
    ledger = Ledger(LocalStore(tmp_path / "store"), "aot-defender")
    return Promoter(uri, ledger, lambda: InProcessSmoke(uri), who="tester")


def copy_model(uri: str, name: str) -> None:
    """Another registered model with the same first two versions."""
    client = MlflowClient(uri)
    client.create_registered_model(name)
    with lent_tracking_uri(uri):
        for version in ("1", "2"):
            known = client.get_model_version("aot-defender", version)
            client.create_model_version(name, str(known.source), known.run_id, tags=known.tags, model_id=known.model_id)


def decision(
    challenger: int,
    champion: int | None = None,
    promote: bool = True,
    reason: str = "better",
    model: str = "aot-defender",
) -> Decision:
    return Decision(
        model=model,
        challenger=str(challenger),
        challenger_sha256=f"{challenger}" * 64,
        champion=str(champion) if champion else "",
        champion_sha256=f"{champion}" * 64 if champion else "",
        promote=promote,
        reason=reason,
        alpha=0.025,
        settings=GateSettings(),
        figures={"challenger/worst": 0.8, "challenger/strict/clean": 0.9},
    )


def with_smoke(promoter: Promoter, fails: Callable[[str], bool]) -> Promoter:
    return replace(promoter, smoke=lambda: InProcessSmoke(promoter.uri, fails))
