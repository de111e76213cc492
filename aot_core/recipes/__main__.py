"""Makes the shipped base models again, from the seed: `python -m aot_core.recipes MODEL --output DIR`.

Phases that are finished stand in the home's `pretraining/` (the Defender's) or in DIR (the editor's) and are not run
again. Everything is tracked as a run of the experiment `base-models` in the home's MLflow: loss and skills every 50
steps, the measured skills, the model card.
"""

import argparse
import shutil
from pathlib import Path

import torch

from aot_core.contracts.base import sha256_of
from aot_core.defender.answering import Defender
from aot_core.home import Home
from aot_core.recipes import defender, editor
from aot_core.recipes.defender_skills import FAMILIES, measure, write_card
from aot_core.tracking.mlflow_tracking import MlflowTracker, close_run, open_campaign_run
from aot_core.tracking.protocol import Tracker

EXPERIMENT = "base-models"
QUESTIONS = 1000
"""Of every kind, about held-out scenes, in a model card."""


def make_defender(output: Path, seed: int, work: Path, tracker: Tracker) -> None:
    """`aot-tiny-vl` in `output`, with its card."""
    shutil.copytree(defender.pretrain(work, seed, tracker), output, dirs_exist_ok=True)
    skills = measure(Defender.load(str(output)), QUESTIONS)
    write_card(output, seed, skills)
    figures = {
        f"skills/{kind}/{family}-{count}": skill.right / skill.asked
        for (kind, family, count), skill in skills.accuracy.items()
        if count or family == FAMILIES[0]
    }
    tracker.log_metrics(figures)
    tracker.log_artifact(output / "README.md")


def make_editor(output: Path, seed: int, tracker: Tracker, recipe: editor.Recipe | None = None) -> None:
    """`aot-tiny-edit` in `output`, with its card and a sheet of its edits."""
    skills = editor.pretrain(output, recipe or editor.Recipe(), seed, tracker)
    tracker.log_metrics({f"skills/{name}": float(value) for name, value in skills.model_dump().items()})
    for name in ("README.md", "edits.png"):
        tracker.log_artifact(output / name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=("aot-tiny-vl", "aot-tiny-edit"))
    parser.add_argument("--output", type=Path, required=True, help="folder for the finished model")
    parser.add_argument("--seed", type=int, help="another model of the same recipe; the shipped one's unless given")
    parser.add_argument("--home", type=Path, default=Path(".aot"))
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    home = Home(arguments.home.resolve())
    home.create()
    is_defender = arguments.model == "aot-tiny-vl"
    seed = arguments.seed if arguments.seed is not None else defender.BASE_SEED if is_defender else 0
    params = {"seed": seed, "model": arguments.model}
    run_id = open_campaign_run(home.mlflow_uri, EXPERIMENT, sha256_of(params), arguments.model, params)
    tracker = MlflowTracker(home.mlflow_uri, run_id)
    if is_defender:
        make_defender(arguments.output, seed, home.root / "pretraining" / arguments.model, tracker)
    else:
        make_editor(arguments.output, seed, tracker)
    close_run(home.mlflow_uri, run_id)


if __name__ == "__main__":
    main()
