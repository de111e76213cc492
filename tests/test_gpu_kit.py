"""`benchmarks/gpu.py` at toy shapes on the CPU: what it measures on a card runs, is kept, and is not measured twice."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
PIECES = ["3b shared", "3b stock", "editor window"]


def kit(output: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "benchmarks/gpu.py", "--output", str(output), *arguments]
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=900)


def test_each_piece_is_measured_once(tmp_path: Path) -> None:
    output = tmp_path / "gpu.json"
    first = kit(output, "--small", "--pieces", *PIECES)
    assert first.returncode == 0, first.stdout + first.stderr
    found = json.loads(output.read_text())["pieces"]
    assert set(found) == set(PIECES)
    assert all(figures["seconds"] > 0 for figures in found.values())
    assert found["3b shared"]["tokens_a_second"] > 0 and found["editor window"]["trained_steps"] == 1
    again = kit(output, "--small", "--pieces", *PIECES)
    assert (again.returncode, again.stdout) == (0, "")
    late = kit(output, "--small", "--minutes", "0", "--pieces", "editor all")
    assert late.returncode == 1 and "editor all: no time left" in late.stdout
    assert json.loads(output.read_text())["pieces"] == found


def test_without_a_card_it_says_so(tmp_path: Path) -> None:
    told = kit(tmp_path / "gpu.json")
    assert told.returncode == 1 and "no usable GPU; --small tries the same code" in told.stderr
