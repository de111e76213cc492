"""The registered Defender over HTTP: `mlflow models serve`, and `transformers serve` on what `aot export` wrote."""

import base64
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path

import httpx
import pytest
from PIL import Image

from aot_core.commands.export import ExportError, export_defender
from aot_core.contracts.artifact import ArtifactRef, ExternalRef
from aot_core.contracts.learning import DefenderModelSettings, LoraSettings
from aot_core.contracts.scene import Query, Question
from aot_core.defender.answering import Defender
from aot_core.defender.checkpoints import load_defender, load_trainable, save
from aot_core.engine.identity import pin_model
from aot_core.tracking import registry
from aot_core.tracking.mlflow_tracking import open_campaign_run

pytestmark = pytest.mark.timeout(600)
BASE = "aot-tiny-vl"
TEXT = "Is there a red ring?\nA. yes\nB. no\nAnswer with \\boxed{X}."
QUESTION = Question(
    query=Query(kind="existence", target={}), text="Is there a red ring?", options=("yes", "no"), answer="A"
)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A registry whose champion is an adapter on the shipped base."""
    folder = tmp_path_factory.mktemp("home")
    model, processor = load_trainable(None, BASE, DefenderModelSettings(lora=LoraSettings(rank=2, alpha=4)), "cpu")
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            weight.data.normal_(std=0.02)
    save(model, processor, folder / "checkpoint", BASE)
    uri = f"sqlite:///{folder}/mlflow.db"
    run_id = open_campaign_run(uri, "aot", "key", "test", {})
    artifact = ArtifactRef(uri="aot://defender_round/" + "1" * 64, sha256="2" * 64)
    trained = registry.TrainedDefender(folder / "checkpoint", artifact, pin_model(BASE))
    version = registry.register_defender(uri, run_id, trained)
    registry.set_alias(uri, registry.CHAMPION, version)
    Image.effect_noise((64, 64), 70).convert("RGB").save(folder / "scene.png")
    return folder


def answer(defender: Defender, home: Path) -> str:
    image = Image.open(home / "scene.png")
    return defender.answer([image], [QUESTION], samples=1, temperature=0.0, seed=0)[0][0]


def sure(defender: Defender, home: Path) -> dict[str, float]:
    return defender.letter_logprobs([Image.open(home / "scene.png")], [QUESTION])[0]


@contextmanager
def served(command: list[str], health: str, environment: dict[str, str], log: Path) -> Iterator[None]:
    """A server's process, once it answers; its whole group is ended afterwards."""
    with log.open("wb") as stream:
        process = subprocess.Popen(
            command, env=os.environ | environment, stdout=stream, stderr=stream, start_new_session=True
        )
        try:
            deadline = time.monotonic() + 300
            while True:
                assert process.poll() is None and time.monotonic() < deadline, log.read_text()
                try:
                    if httpx.get(health, timeout=5, trust_env=False).status_code == 200:
                        break
                except httpx.HTTPError:
                    pass
                time.sleep(0.5)
            yield
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            process.wait(30)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def encoded(home: Path) -> str:
    return base64.b64encode((home / "scene.png").read_bytes()).decode()


def test_mlflow_serves_the_champion(home: Path) -> None:
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", "models:/aot-defender@champion"]
    command += ["--env-manager", "local", "--host", "127.0.0.1", "--port", str(port)]
    # MLflow looks for its server's command on the path.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {"MLFLOW_TRACKING_URI": f"sqlite:///{home}/mlflow.db", "PATH": path}
    with served(command, f"http://127.0.0.1:{port}/ping", environment, home / "mlflow.log"):
        body = {"dataframe_records": [{"image": encoded(home), "question": TEXT}]}
        reply = httpx.post(f"http://127.0.0.1:{port}/invocations", json=body, timeout=120, trust_env=False)
    assert reply.status_code == 200, reply.text
    (row,) = reply.json()["predictions"]
    assert row["completion"] == answer(load_defender(home / "checkpoint", BASE), home)
    assert row["letter"] in ("A", "B") and row["answer"] in ("yes", "no")


@pytest.fixture(scope="module")
def exported(home: Path) -> Path:
    number, told = export_defender(f"sqlite:///{home}/mlflow.db", "aot-defender", "champion", home / "exported")
    assert (number, told) == ("1", f"its adapter merged into {BASE} in float32")
    return home / "exported"


def test_the_exported_folder_is_the_merged_model(home: Path, exported: Path) -> None:
    assert answer(Defender.load(str(exported)), home) == answer(load_defender(home / "checkpoint", BASE), home)
    assert {"config.json", "model.safetensors", "chat_template.jinja"} <= {path.name for path in exported.iterdir()}
    uri = f"sqlite:///{home}/mlflow.db"
    with pytest.raises(ExportError, match="is not empty"):
        export_defender(uri, "aot-defender", "1", exported)
    with pytest.raises(ExportError, match="no version or alias 'best'"):
        export_defender(uri, "aot-defender", "best", home / "other")
    assert not (home / "other").exists()


def test_an_adapter_trained_in_half_precision_is_exported_whole_or_apart(home: Path, tmp_path: Path) -> None:
    """Merged in bfloat16, changes of 0.002 and less of a weight would be lost."""
    uri = f"sqlite:///{home}/mlflow.db"
    run_id = open_campaign_run(uri, "aot", "key", "test", {})
    artifact = ArtifactRef(uri="aot://defender_round/" + "1" * 64, sha256="4" * 64)
    half = registry.TrainedDefender(home / "checkpoint", artifact, pin_model(BASE), dtype="bfloat16")
    version = registry.register_defender(uri, run_id, half)

    merged = export_defender(uri, "aot-defender", version, tmp_path / "merged").told
    assert "in float32" in merged and "--dtype float32" in merged and "--adapter" in merged
    assert sure(Defender.load(str(tmp_path / "merged")), home) == sure(load_defender(home / "checkpoint", BASE), home)

    apart = export_defender(uri, "aot-defender", version, tmp_path / "apart", adapter=True).told
    assert "of rank 2" in apart and "vLLM applies no adapter of the vision tower" in apart, "all layers were trained"
    alone = Defender.load(BASE, tmp_path / "apart", dtype="bfloat16")
    assert sure(alone, home) == sure(load_defender(home / "checkpoint", BASE, dtype="bfloat16"), home)
    assert sure(alone, home) != sure(Defender.load(BASE, dtype="bfloat16"), home)


def test_an_adapter_is_put_on_no_other_base(home: Path) -> None:
    uri = f"sqlite:///{home}/mlflow.db"
    run_id = open_campaign_run(uri, "aot", "key", "test", {})
    artifact = ArtifactRef(uri="aot://defender_round/" + "1" * 64, sha256="3" * 64)
    other = registry.TrainedDefender(home / "checkpoint", artifact, ExternalRef(name=BASE, sha256="0" * 64))
    version = registry.register_defender(uri, run_id, other)
    with pytest.raises(ValueError, match=r"differs .* from the one that training started from"):
        export_defender(uri, "aot-defender", version, home / "other")


# Where torchvision is missing, Qwen's processor cannot load its video part, and with it not at all: the server is then
# started with the project's processor for images and text in its place. The folder is the same.
PATCHED = """
import sys
import transformers.models.qwen2_5_vl as qwen
import transformers.models.qwen2_5_vl.processing_qwen2_5_vl as processing
from aot_core.defender.loading import ImageTextProcessor
qwen.Qwen2_5_VLProcessor = processing.Qwen2_5_VLProcessor = ImageTextProcessor
import transformers
transformers.Qwen2_5_VLProcessor = ImageTextProcessor
from transformers.cli.transformers import main
main()
"""


@pytest.mark.skipif(find_spec("openai") is None, reason="transformers serve needs openai: pip install -e .[dev]")
def test_transformers_serves_what_was_exported(home: Path, exported: Path) -> None:
    port = free_port()
    start = ["-m", "transformers.cli.transformers"] if find_spec("torchvision") else ["-c", PATCHED]
    command = [sys.executable, *start, "serve", str(exported), "--host", "127.0.0.1", "--port", str(port)]
    with served([*command, "--device", "cpu"], f"http://127.0.0.1:{port}/health", {}, home / "transformers.log"):
        picture = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{encoded(home)}"}}
        body = {
            "model": str(exported),
            "messages": [{"role": "user", "content": [picture, {"type": "text", "text": TEXT}]}],
            "temperature": 0.0,
            "max_tokens": 16,
            "stream": False,
        }
        url = f"http://127.0.0.1:{port}/v1/chat/completions"
        reply = httpx.post(url, json=body, timeout=120, trust_env=False)
    assert reply.status_code == 200, reply.text + (home / "transformers.log").read_text()
    said = json.loads(reply.text)["choices"][0]["message"]["content"]
    assert said == answer(Defender.load(str(exported)), home)
