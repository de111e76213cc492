"""warm_start_defender and defender_round on the shipped tiny model: what goes in, what is written, what is said."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file
from transformers import PreTrainedModel

from aot_core.contracts.artifact import ArtifactRef, ExternalRef
from aot_core.contracts.defender_round import DefenderRoundConfig, DefenderRoundInputs, DynamicSampling
from aot_core.contracts.errors import NonFiniteLossError, StageBadInputError
from aot_core.contracts.learning import DefenderModelSettings, LoraSettings
from aot_core.contracts.scene import Sample, Scene, Split
from aot_core.contracts.spec import Place, StageSpec
from aot_core.contracts.warm_start_defender import WarmStartDefenderConfig, WarmStartDefenderInputs
from aot_core.data.bank import held_back
from aot_core.data.dataset import read_samples, save_image, write_dataset
from aot_core.defender.checkpoints import load_defender
from aot_core.engine.context import StageContext
from aot_core.engine.identity import stage_spec
from aot_core.engine.runner import execute
from aot_core.stages.defender_round import run_defender_round
from aot_core.stages.warm_start_defender import run_warm_start_defender
from aot_core.store import LocalStore
from aot_core.tracking.protocol import NullTracker
from aot_core.worlds.shapes import world
from aot_core.worlds.shapes.questions import ask_world

BASE = ExternalRef(name="aot-tiny-vl")
LORA = DefenderModelSettings(lora=LoraSettings(rank=4, alpha=8))
SMALL_ROUND = {"generations": 2, "prompts": 4, "group_size": 4, "temperature": 1.5, "clean_share": 0.2}


@dataclass
class Listener(NullTracker):
    metrics: list[tuple[int | None, dict[str, float]]] = field(default_factory=list)

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        self.metrics.append((step, dict(metrics)))


def make_dataset(folder: Path, split: Split, count: int = 12) -> None:
    rng = np.random.default_rng(0)
    samples: list[Sample] = []
    while len(samples) < count:
        objects = world.random_objects(rng, 7)
        question = ask_world(rng, "existence", objects)
        if question is None:
            continue
        backdrop, name = world.random_backdrop(rng), f"q{len(samples)}"
        samples.append(
            Sample(
                sample_id=name,
                split=split,
                scene=Scene(scene_id=name, source_id=name, width=64, height=64, objects=objects),
                question=question,
                image=save_image(folder, name, world.render(objects[:3], backdrop)),
                edited_image=save_image(folder, f"{name}-edited", world.render(objects, backdrop)),
                edited_objects=objects,
            )
        )
    write_dataset(folder, samples)


def put(store: LocalStore, stage: str, folder: Path, letter: str) -> ArtifactRef:
    return store.put(stage, letter * 64, folder)


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> LocalStore:
    return LocalStore(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def warm_dataset(store: LocalStore, tmp_path_factory) -> ArtifactRef:
    folder = tmp_path_factory.mktemp("data")
    make_dataset(folder, "warm_start")
    return put(store, "prepare_data", folder, "a")


@pytest.fixture(scope="module")
def curated(store: LocalStore, tmp_path_factory) -> ArtifactRef:
    folder = tmp_path_factory.mktemp("curated")
    make_dataset(folder, "train")
    return put(store, "curate", folder, "b")


def context(store: LocalStore, folder: Path, tracker: Listener | None = None) -> StageContext:
    (folder / "output").mkdir(parents=True)
    return StageContext(store, folder / "output", folder / "scratch", "cpu", tracker or Listener())


@pytest.fixture(scope="module")
def warm(store: LocalStore, warm_dataset: ArtifactRef, tmp_path_factory) -> ArtifactRef:
    here = context(store, tmp_path_factory.mktemp("warm"))
    config = WarmStartDefenderConfig(samples=8, batch_size=4, seed=3)
    outputs = run_warm_start_defender(config, WarmStartDefenderInputs(dataset=warm_dataset, base=BASE), here)
    assert (outputs.samples, outputs.updates) == (8, 2)
    assert [step for step, _ in here.tracker.metrics] == [1, 2]  # type: ignore[attr-defined]
    return put(store, "warm_start_defender", here.output, "c")


def test_the_warm_start_s_model_answers(store: LocalStore, warm: ArtifactRef) -> None:
    defender = load_defender(store.fetch(warm), BASE.name)
    rng = np.random.default_rng(1)
    objects = world.random_objects(rng, 2)
    question = ask_world(rng, "existence", objects)
    assert question is not None
    answers = defender.answer([world.render(objects, world.Backdrop())], [question], samples=1, temperature=0.0, seed=0)
    assert answers[0][0] in (r"\boxed{A}", r"\boxed{B}")


def test_a_round_trains_all_but_the_vision_tower_and_says_how_it_went(
    store: LocalStore, warm: ArtifactRef, curated: ArtifactRef, tmp_path: Path
) -> None:
    inputs = DefenderRoundInputs(curated=curated, defender=warm, base=BASE)
    runs = []
    for name in ("first", "again"):
        listener = Listener()
        here = context(store, tmp_path / name, listener)
        outputs = run_defender_round(DefenderRoundConfig(**SMALL_ROUND, seed=5), inputs, here)
        runs.append((outputs.model_dump(), load_file(here.output / "model" / "model.safetensors")))
    (first, weights), (again, same_weights) = runs
    assert first == pytest.approx(again, rel=1e-5), "the same seed gives the same round"
    for name, weight in weights.items():
        torch.testing.assert_close(weight, same_weights[name], rtol=1e-4, atol=1e-6)
    before = load_file(store.fetch(warm) / "model" / "model.safetensors")
    after = load_file(here.output / "model" / "model.safetensors")
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed and changed == {name for name in before if "visual" not in name}
    assert (outputs.prompts, outputs.updates) == (15, 4)
    assert [step for step, _ in listener.metrics] == [1, 2, 3, 4]
    wanted = {"reward", "accuracy", "flat_groups", "entropy", "clip_ratio", "completion_length"}
    assert {f"defender/{name}" for name in wanted} <= set(listener.metrics[0][1])
    assert 0 <= outputs.flat_groups <= 1 and outputs.entropy > 0


def test_the_adapter_of_one_round_is_trained_on_in_the_next(
    store: LocalStore, warm_dataset: ArtifactRef, curated: ArtifactRef, tmp_path: Path
) -> None:
    here = context(store, tmp_path / "warm")
    config = WarmStartDefenderConfig(samples=8, batch_size=8, model=LORA, warmup_ratio=0.0)
    run_warm_start_defender(config, WarmStartDefenderInputs(dataset=warm_dataset, base=BASE), here)
    assert [folder.name for folder in here.output.iterdir()] == ["adapter"]
    warm = put(store, "warm_start_defender", here.output, "d")

    there = context(store, tmp_path / "round")
    inputs = DefenderRoundInputs(curated=curated, defender=warm, base=BASE)
    run_defender_round(DefenderRoundConfig(**SMALL_ROUND, model=LORA, micro_batch=8), inputs, there)
    adapter = json.loads((there.output / "adapter" / "adapter_config.json").read_text())
    assert (adapter["r"], adapter["base_model_name_or_path"]) == (4, "aot-tiny-vl")
    load_defender(there.output, BASE.name)


def test_an_adapter_s_first_weights_come_of_the_seed(
    store: LocalStore, warm_dataset: ArtifactRef, tmp_path: Path
) -> None:
    config = WarmStartDefenderConfig(samples=8, batch_size=8, model=LORA)
    written = []
    for ambient in (1, 2):
        torch.manual_seed(ambient)
        here = context(store, tmp_path / str(ambient))
        run_warm_start_defender(config, WarmStartDefenderInputs(dataset=warm_dataset, base=BASE), here)
        written.append((here.output / "adapter" / "adapter_model.safetensors").read_bytes())
    assert written[0] == written[1]


def test_a_loss_that_is_not_finite_leaves_no_model(
    store: LocalStore, warm: ArtifactRef, curated: ArtifactRef, tmp_path: Path
) -> None:
    here = context(store, tmp_path)
    # Beyond the bounds that a config is held to: a loss must not be finite for sure.
    beyond = {"learning_rate": 1e30, "max_grad_norm": 1e9}
    config = DefenderRoundConfig(**SMALL_ROUND, warmup_ratio=0.0).model_copy(update=beyond)
    inputs = DefenderRoundInputs(curated=curated, defender=warm, base=BASE)
    with pytest.raises(NonFiniteLossError, match=r"defender_round: .*Lower defender_round.learning_rate"):
        run_defender_round(config, inputs, here)
    assert not list(here.output.iterdir())


def test_a_reference_that_waits_on_the_cpu_changes_nothing(
    store: LocalStore, warm: ArtifactRef, curated: ArtifactRef, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where there is no GPU it moves from the CPU to the CPU: away at first, and for every use there and back."""
    moves: list[tuple[object, ...]] = []
    plain = PreTrainedModel.to

    def noted(self: PreTrainedModel, *args: object, **kwargs: object) -> object:
        moves.append(args)
        return plain(self, *args, **kwargs)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(PreTrainedModel, "to", noted)
    inputs = DefenderRoundInputs(curated=curated, defender=warm, base=BASE)
    weights, counts = [], []
    for waits in (False, True):
        here = context(store, tmp_path / str(waits))
        moves.clear()
        config = DefenderRoundConfig(**SMALL_ROUND | {"generations": 1}, beta=0.1, reference_on_cpu=waits)
        run_defender_round(config, inputs, here)
        weights.append(load_file(here.output / "model" / "model.safetensors"))
        counts.append(len(moves))
    assert counts[1] >= counts[0] + 3 and moves[-1] == ("cpu",)
    for name, weight in weights[0].items():
        torch.testing.assert_close(weight, weights[1][name], rtol=1e-5, atol=1e-7)


def test_a_data_set_without_warm_start_samples_says_so(store: LocalStore, curated: ArtifactRef, tmp_path: Path) -> None:
    inputs = WarmStartDefenderInputs(dataset=curated, base=BASE)
    with pytest.raises(ValueError, match=r"warm_start` is empty.*prepare_data.splits.warm_start"):
        run_warm_start_defender(WarmStartDefenderConfig(), inputs, context(store, tmp_path))


def test_a_warm_start_leaves_out_what_the_regression_suite_may_ask(
    store: LocalStore, warm_dataset: ArtifactRef, tmp_path: Path
) -> None:
    samples = read_samples(store.fetch(warm_dataset), "warm_start")
    taught = sum(not held_back(sample, 0.5) for sample in samples)
    assert 0 < taught < len(samples)
    inputs, here = WarmStartDefenderInputs(dataset=warm_dataset, base=BASE), context(store, tmp_path / "half")
    outputs = run_warm_start_defender(WarmStartDefenderConfig(batch_size=8, held_back=0.5), inputs, here)
    assert outputs.samples == taught


def round_in(
    root: Path, source: LocalStore, curated: ArtifactRef, defender: ArtifactRef, **changes: object
) -> StageSpec:
    """One small round, in a store of its own: where it runs is no part of what it is."""
    store = LocalStore(root)
    copies = [
        store.put(stage, ref.uri[-64:], source.fetch(ref))
        for stage, ref in (("curate", curated), ("warm_start_defender", defender))
    ]
    settings = {
        "generations": 8,
        "prompts": 2,
        "group_size": 4,
        "checkpoint_every": 2,
        "clean_share": 0.0,
        "learning_rate": 1e-4,
        "dynamic_sampling": DynamicSampling(),
    }
    config = DefenderRoundConfig.model_validate(settings | changes)
    inputs = DefenderRoundInputs(curated=copies[0], defender=copies[1], base=BASE)
    return stage_spec("defender_round", config, inputs, Place(store=str(root), device="cpu", threads=1))


def kill_in_the_middle(spec: StageSpec, folder: Path) -> Path:
    """Run a stage in a process of its own and kill that at its second checkpoint; returns the progress folder."""
    (folder / "spec.json").write_text(spec.model_dump_json())
    progress = Path(spec.place.store) / ".progress" / "defender_round" / spec.key
    with (folder / "log").open("w") as log:
        command = [sys.executable, "-m", "aot_core.stages", str(folder / "spec.json")]
        process = subprocess.Popen(command, stdout=log, stderr=log)
        while not (progress / "checkpoint-4" / "complete").exists():
            assert process.poll() is None, (folder / "log").read_text()
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    assert LocalStore(Path(spec.place.store)).find(spec.stage, spec.key) is None
    return progress


def test_a_round_killed_in_the_middle_ends_with_the_same_bits(
    store: LocalStore, warm: ArtifactRef, curated: ArtifactRef, tmp_path: Path
) -> None:
    whole = execute(round_in(tmp_path / "whole", store, curated, warm)).record
    spec = round_in(tmp_path / "killed", store, curated, warm)
    assert whole is not None and whole.key == spec.key

    progress = kill_in_the_middle(spec, tmp_path)
    again = execute(spec).record
    assert again is not None
    assert again.outputs["resumed_at"] >= 4 and whole.outputs["resumed_at"] == 0
    assert again.artifact.sha256 == whole.artifact.sha256, "weights and rewards, to the bit"
    assert again.outputs | {"resumed_at": 0} == whole.outputs
    assert not progress.exists(), "nothing is left of what it needed"


@pytest.mark.slow
def test_two_processes_train_as_stock_trl_does_and_survive_a_kill(
    store: LocalStore, warm: ArtifactRef, curated: ArtifactRef, tmp_path: Path
) -> None:
    """Two processes on gloo: the shared prompt against TRL's own code, and against itself killed and begun again."""
    two = {"processes": 2, "prompts": 4, "generations": 4, "micro_batch": 4}
    found = {}
    for name, shared in (("shared", True), ("stock", False)):
        spec = round_in(tmp_path / name, store, curated, warm, **two, share_prompts=shared, dynamic_sampling=None)
        record = execute(spec).record
        assert record is not None
        folder = LocalStore(tmp_path / name).fetch(record.artifact)
        rows = pq.read_table(folder / "rewards.parquet").to_pylist()
        found[name] = record.outputs, rows, load_file(folder / "model" / "model.safetensors")
    (outputs, rows, weights), (stock_outputs, stock_rows, stock_weights) = found["shared"], found["stock"]
    assert outputs["updates"] == 8 and len(rows) == 4 * 4 * 4, "both processes' answers are in the log"
    assert [row["completion"] for row in rows] == [row["completion"] for row in stock_rows]
    assert outputs["generated_tokens"] == stock_outputs["generated_tokens"] == sum(row["tokens"] for row in rows)
    before = load_file(store.fetch(warm) / "model" / "model.safetensors")
    assert any(not torch.equal(before[name], weight) for name, weight in weights.items()), "it learns"
    for name, weight in weights.items():
        torch.testing.assert_close(weight, stock_weights[name], rtol=1e-3, atol=1e-5)

    whole = execute(round_in(tmp_path / "whole", store, curated, warm, **two)).record
    spec = round_in(tmp_path / "killed", store, curated, warm, **two)
    kill_in_the_middle(spec, tmp_path)
    again = execute(spec).record
    assert whole is not None and again is not None
    assert again.outputs["resumed_at"] >= 4
    assert again.artifact.sha256 == whole.artifact.sha256, "weights and rewards, to the bit"


@pytest.mark.slow
def test_what_one_of_two_processes_says_is_said_by_the_stage(
    store: LocalStore, warm: ArtifactRef, curated: ArtifactRef, tmp_path: Path
) -> None:
    spec = round_in(tmp_path / "store", store, curated, warm, processes=2, max_prompt_tokens=5)
    with pytest.raises(StageBadInputError, match=r"prompts are longer than max_prompt_tokens 5"):
        execute(spec)
