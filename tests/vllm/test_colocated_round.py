"""GRPO whose answers come from vLLM in the trainer's own process, on a CPU: TRL's colocated mode, the real part."""

import json
import os
import re
import subprocess
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.stages.test_defender_stages import make_dataset
from tests.vllm.conftest import DEFENDER, environment

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(3600)]
ROOT = Path(__file__).parents[2]


def test_a_round_is_answered_by_vllm_and_vllm_follows_the_weights(tmp_path: Path) -> None:
    make_dataset(tmp_path / "curated", "train")
    program = [str(environment() / "bin" / "python"), str(ROOT / "tests" / "vllm" / "colocated_round.py")]
    done = subprocess.run(
        [*program, str(tmp_path / "curated"), str(tmp_path / "round")],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads(done.stdout.splitlines()[-1])
    outputs, metrics = told["outputs"], told["metrics"]
    assert outputs["updates"] == len(metrics) == 8 and outputs["generated_tokens"] >= 4 * 16
    before, after = load_file(DEFENDER / "model.safetensors"), load_file(tmp_path / "round/model/model.safetensors")
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed and not [name for name in changed if "visual" in name]
    # After every update vLLM gives its answers the probabilities that the trainer gives them. It sampled the first from
    # the weights on disk; had it kept those, the difference would grow by orders of magnitude.
    differences = [entry[name] for entry in metrics if (name := "defender/sampler_difference") in entry]
    assert len(differences) == 4 and max(differences) < 1e-3, differences
    assert any(entry["defender/grad_norm"] > 0 for entry in metrics)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"mode": "server"}, 'defender_round.vllm.mode: .*set mode = "colocate", or leave vllm out'),
        ({"mode": "colocate"}, None),
    ],
)
def test_what_a_cpu_cannot_do_is_refused_before_anything_starts(
    settings: dict[str, str], says: str | None, tmp_path: Path
) -> None:
    program = "import sys; from pathlib import Path; from aot_core.contracts.defender_round import *; "
    program += "from aot_core.defender.grpo import grpo_arguments; "
    program += (
        f"print(grpo_arguments(DefenderRoundConfig(vllm=Vllm(**{settings!r})), Path(sys.argv[1]), 'cpu').use_vllm)"
    )
    done = subprocess.run(
        [str(environment() / "bin" / "python"), "-c", program, str(tmp_path)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    if says is None:
        assert done.returncode == 0 and done.stdout.split()[-1] == "True", done.stderr[-3000:]
    else:
        assert done.returncode == 1 and re.search(says, done.stderr), done.stderr[-3000:]
