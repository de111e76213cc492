"""vLLM on a CPU, really run: `make test-vllm` sets it up (`setup.sh`) and names its environment in AOT_VLLM."""

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from aot_core.base_models.names import SHIPPED
from aot_core.contracts.benchmarks import EndpointSettings, VllmSettings
from aot_core.contracts.scene import Question
from aot_core.evaluation.engines.protocol import Ask
from aot_core.evaluation.engines.vllm_server import vllm_server
from aot_core.worlds.shapes import world
from aot_core.worlds.shapes.questions import ask_world

ARGUMENTS = ("--enforce-eager", "--max-model-len", "1024", "--limit-mm-per-prompt", '{"video": 0}')
"""Nothing is compiled, which takes minutes on a CPU, and no room is made for videos."""
QUICK = VllmSettings(arguments=ARGUMENTS, start_seconds=1500, concurrency=8)
DEFENDER = SHIPPED / "aot-tiny-vl"


def environment() -> Path:
    """vLLM's environment. A test without it fails: whoever asks for the mark `vllm` wants it run."""
    folder = os.environ.get("AOT_VLLM")
    assert folder, "AOT_VLLM names no environment with vLLM; run `make test-vllm`"
    return Path(folder)


@pytest.fixture(autouse=True)
def vllm_on_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    put_on_the_path(monkeypatch)


def put_on_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(environment() / "bin"), prepend=os.pathsep)
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
    monkeypatch.setenv("VLLM_NO_USAGE_STATS", "1")
    monkeypatch.delenv("PYTHONPATH", raising=False)


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EndpointSettings]:
    """The tiny Defender behind one server for all tests that do it no harm."""
    with pytest.MonkeyPatch.context() as patched:
        put_on_the_path(patched)
        log = tmp_path_factory.mktemp("served") / "vllm.log"
        with vllm_server(DEFENDER, QUICK, log, "float32") as endpoint:
            yield endpoint


def asked(count: int) -> list[tuple[Image.Image, Question]]:
    """Scenes of five objects and questions about them, every kind as often as the others."""
    rng, found = np.random.default_rng(0), []
    kinds = ("existence", "count", "attribute", "relation")
    while len(found) < count:
        objects = world.random_objects(rng, 5)
        question = ask_world(rng, kinds[len(found) % len(kinds)], objects)
        if question is not None:
            found.append((world.render(objects, world.random_backdrop(rng)), question))
    return found


def asks(count: int) -> list[Ask]:
    return [
        Ask(f"q{number}", question.prompt, partial(_alone, picture), 1)
        for number, (picture, question) in enumerate(asked(count))
    ]


def _alone(picture: Image.Image) -> list[Image.Image]:
    return [picture]
