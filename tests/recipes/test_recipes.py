"""The shipped models' recipes as a command, on a few steps: what is made, and what MLflow is told."""

import dataclasses
import sys
from pathlib import Path

import pytest
from mlflow import MlflowClient

from aot_core.recipes import __main__ as pretraining
from aot_core.recipes import defender
from aot_core.recipes.editor import Recipe
from aot_core.recipes.editor_autoencoder import AutoencoderRecipe
from aot_core.recipes.editor_transformer import TransformerRecipe


def test_both_models_are_made_measured_and_tracked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(defender, "SEE_STEPS", 1)
    monkeypatch.setattr(defender, "SEE_IMAGES", 2)
    small = tuple(dataclasses.replace(p, steps=1, images=2, lessons=3) for p in defender.LANGUAGE_PHASES)
    monkeypatch.setattr(defender, "LANGUAGE_PHASES", small)
    monkeypatch.setattr(pretraining, "QUESTIONS", 2)
    step = TransformerRecipe(steps=50, batch=2, pool=8)
    recipe = Recipe(
        autoencoder=AutoencoderRecipe(steps=50, batch=2), transformer=step, questions=step, measured_pairs=2
    )
    monkeypatch.setattr(pretraining.editor, "Recipe", lambda: recipe)

    for model, wanted in (
        ("aot-tiny-vl", {"see/loss", "ask/loss", "skills/existence/semantic-0", "skills/count/irrelevant-3"}),
        ("aot-tiny-edit", {"autoencoder/loss", "drawing/loss", "questions/loss", "skills/remove"}),
    ):
        home = tmp_path / "home"
        monkeypatch.setattr(sys, "argv", ["pretraining", model, "--output", str(tmp_path / model), "--home", str(home)])
        pretraining.main()
        assert "## Measured" in (tmp_path / model / "README.md").read_text()
        client = MlflowClient(f"sqlite:///{home}/mlflow/mlflow.db")
        experiment = client.get_experiment_by_name(pretraining.EXPERIMENT)
        assert experiment is not None
        (run,) = [r for r in client.search_runs([experiment.experiment_id]) if r.data.params["model"] == model]
        assert run.info.status == "FINISHED" and wanted <= set(run.data.metrics)
        assert "README.md" in [entry.path for entry in client.list_artifacts(run.info.run_id)]
