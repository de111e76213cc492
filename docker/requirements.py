"""Prints what an image installs: the project's own dependencies, less what the image has no use for.

`python requirements.py control` leaves out the learners, `stage-cpu` and `stage-gpu` the orchestration. Versions are
the lock's (`--constraint requirements.lock`).
"""

import re
import sys
import tomllib
from pathlib import Path

LEARNING = {
    "accelerate", "datasets", "diffusers", "great-expectations", "peft", "torch", "transformers", "trl"
}  # fmt: skip
ORCHESTRATION = {"docker", "prefect", "typer"}
LEFT_OUT = {"control": LEARNING, "stage-cpu": ORCHESTRATION, "stage-gpu": ORCHESTRATION}
ADDED = {"control": ["flask-wtf", "psycopg2-binary"], "stage-cpu": [], "stage-gpu": []}
"""The control image also is MLflow's server, on Postgres and with basic auth."""


def chosen(image: str, pyproject: Path) -> list[str]:
    """The requirements of an image, as pip reads them."""
    wanted: list[str] = tomllib.loads(pyproject.read_text())["project"]["dependencies"]
    kept = [line for line in wanted if re.split(r"[^\w-]", line)[0] not in LEFT_OUT[image]]
    return [*kept, *ADDED[image]]


if __name__ == "__main__":
    sys.stdout.write("\n".join(chosen(sys.argv[1], Path("pyproject.toml"))) + "\n")
