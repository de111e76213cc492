"""A champion that version 0.1.0 registered loads and answers: its code was copied into it, and imports by path."""

from pathlib import Path

import mlflow
import pytest
from PIL import Image

from aot_core.contracts.artifact import ArtifactRef
from aot_core.contracts.learning import DefenderModelSettings, LoraSettings
from aot_core.defender.checkpoints import load_trainable, save
from aot_core.engine.identity import pin_model
from aot_core.tracking import registry
from aot_core.tracking.mlflow_tracking import open_campaign_run

RELEASED = Path(__file__).with_name("released_defender_pyfunc.py")
"""`aot_core/tracking/defender_pyfunc.py` as it was released, to the letter."""


@pytest.mark.timeout(600)
def test_a_model_registered_by_the_first_release_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = "aot-tiny-vl"
    model, processor = load_trainable(None, base, DefenderModelSettings(lora=LoraSettings(rank=2, alpha=4)), "cpu")
    save(model, processor, tmp_path / "checkpoint", base)
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    run_id = open_campaign_run(uri, "aot", "key", "test", {})
    artifact = ArtifactRef(uri="aot://defender_round/" + "1" * 64, sha256="2" * 64)
    monkeypatch.setattr(registry, "_CODE", RELEASED)
    trained = registry.TrainedDefender(tmp_path / "checkpoint", artifact, pin_model(base))
    version = registry.register_defender(uri, run_id, trained)
    registry.set_alias(uri, registry.CHAMPION, version)
    Image.effect_noise((64, 64), 70).convert("RGB").save(tmp_path / "scene.png")
    with registry.lent_tracking_uri(uri):
        champion = mlflow.pyfunc.load_model(f"models:/{registry.DEFENDER}@{registry.CHAMPION}")
        row = {"image": [str(tmp_path / "scene.png")], "question": ["Is there a red ring?\nA. yes\nB. no"]}
        told = champion.predict(row)
    assert list(told.columns) == ["letter", "answer", "completion"]
    assert told["letter"][0] in ("A", "B") and told["answer"][0] in ("yes", "no")
