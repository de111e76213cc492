"""Warm start, round and curation one after the other, on real data and the shipped pair, as small as they
go."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from aot_core.attacker.editing import Attacker
from aot_core.attacker.tactics import AttackPolicy
from aot_core.base_models.names import SHIPPED
from aot_core.contracts.artifact import ArtifactRef
from aot_core.contracts.attacker_round import (
    AttackerRoundConfig,
    AttackerRoundInputs,
    PatienceSettings,
    SamplingSettings,
    WindowSettings,
)
from aot_core.contracts.curate import CurateConfig, CurateInputs, LearnabilitySettings, PrioritySettings
from aot_core.contracts.learning import LoraSettings, ModelSettings
from aot_core.contracts.spec import Place, StageSpec
from aot_core.contracts.warm_start_attacker import WarmStartAttackerConfig, WarmStartAttackerInputs
from aot_core.data.dataset import read_samples, wrong_hashes
from aot_core.engine.identity import stage_spec
from aot_core.engine.runner import execute
from aot_core.stages.attacker_round import run_attacker_round
from aot_core.stages.curate import run_curate
from aot_core.stages.warm_start_attacker import run_warm_start_attacker
from aot_core.store import LocalStore
from aot_core.worlds.truth import truth
from tests.stages.conftest import ATTACKER, DEFENDER, context, put_data_set

ROUND = AttackerRoundConfig(seed=4, candidates=24, updates=2, scenes=1, proposals_per_scene=2, group_size=4)


@pytest.fixture(scope="module")
def dataset(store: LocalStore, tmp_path_factory: pytest.TempPathFactory) -> ArtifactRef:
    return put_data_set(store, tmp_path_factory, warm_start=24, train=30, evaluate=0)


@pytest.fixture(scope="module")
def defender(store: LocalStore, tmp_path_factory: pytest.TempPathFactory) -> ArtifactRef:
    """The shipped Defender as a round's artifact."""
    folder = tmp_path_factory.mktemp("defender")
    shutil.copytree(SHIPPED / DEFENDER.name, folder / "model")
    return store.put("warm_start_defender", "1" * 64, folder)


def weights(folder: Path) -> bytes:
    return (folder / "transformer" / "diffusion_pytorch_model.safetensors").read_bytes()


def test_warm_start_fits_the_pairs_and_is_deterministic(
    store: LocalStore, dataset: ArtifactRef, tmp_path: Path
) -> None:
    config = WarmStartAttackerConfig(updates=3, batch_size=8, pairs=16)
    inputs = WarmStartAttackerInputs(dataset=dataset, base=ATTACKER)
    first, second = context(store, tmp_path / "a"), context(store, tmp_path / "b")
    outputs = run_warm_start_attacker(config, inputs, first)
    assert (outputs.pairs, outputs.updates) == (16, 3)
    assert run_warm_start_attacker(config, inputs, second) == outputs
    assert weights(first.output / "model") == weights(second.output / "model") != weights(SHIPPED / ATTACKER.name)


def test_warm_start_with_lora_writes_the_adapter_alone(store: LocalStore, dataset: ArtifactRef, tmp_path: Path) -> None:
    config = WarmStartAttackerConfig(updates=2, batch_size=8, model=ModelSettings(lora=LoraSettings(rank=2)))
    place = context(store, tmp_path)
    run_warm_start_attacker(config, WarmStartAttackerInputs(dataset=dataset, base=ATTACKER), place)
    assert [path.name for path in place.output.iterdir()] == ["adapter"]


def test_a_round_moves_the_attacker_and_shows_its_edits(
    store: LocalStore, dataset: ArtifactRef, attacker: ArtifactRef, defender: ArtifactRef, tmp_path: Path
) -> None:
    inputs = AttackerRoundInputs(
        dataset=dataset, attacker=attacker, defender=defender, attacker_base=ATTACKER, defender_base=DEFENDER
    )
    first, second = context(store, tmp_path / "a"), context(store, tmp_path / "b")
    outputs = run_attacker_round(ROUND, inputs, first)
    assert outputs.edits == 16
    assert 0 < outputs.valid <= 1
    assert outputs.kl > 0
    assert len(json.loads((first.output / "curve.json").read_text())) == 2
    assert (first.output / "pictures" / "attacks.png").is_file()
    assert sum(share for name, share in outputs.tactics.items() if name.startswith("kind/")) == pytest.approx(1)
    assert run_attacker_round(ROUND, inputs, second) == outputs
    assert any(bool(parameter.any()) for *_, parameter in AttackPolicy.load(first.output).entries())
    assert (first.output / "tactics.json").read_bytes() == (second.output / "tactics.json").read_bytes()
    assert weights(first.output / "model") == weights(second.output / "model") != weights(SHIPPED / ATTACKER.name)


def round_in(root: Path, store: LocalStore, refs: list[ArtifactRef]) -> StageSpec:
    """The spec of a round that keeps all that a round can keep, with copies of its inputs in a store of its own."""
    place, copies = LocalStore(root), []
    for ref in refs:
        stage, key = ref.uri.removeprefix("aot://").split("/")[:2]
        copies.append(place.put(stage, key, store.fetch(ref)))  # pyright: ignore[reportArgumentType]
    config = ROUND.model_copy(
        update={
            "updates": 10,
            "checkpoint_every": 1,
            "ema": 0.9,
            "scaling": "prompt",
            "sampling": SamplingSettings(sampler="cps", window=WindowSettings(size=1, move="sampled")),
        }
    )
    inputs = AttackerRoundInputs(
        dataset=copies[0],
        attacker=copies[1],
        defender=copies[2],
        attacker_base=ATTACKER,
        defender_base=DEFENDER,
    )
    return stage_spec("attacker_round", config, inputs, Place(store=str(root), device="cpu", threads=1))


def test_a_round_killed_in_the_middle_ends_with_the_same_bits(
    store: LocalStore, dataset: ArtifactRef, attacker: ArtifactRef, defender: ArtifactRef, tmp_path: Path
) -> None:
    refs = [dataset, attacker, defender]
    whole = execute(round_in(tmp_path / "whole", store, refs)).record
    spec = round_in(tmp_path / "killed", store, refs)
    assert whole is not None
    assert whole.key == spec.key

    (tmp_path / "spec.json").write_text(spec.model_dump_json())
    progress = tmp_path / "killed" / ".progress" / "attacker_round" / spec.key
    with (tmp_path / "log").open("w") as log:
        command = [sys.executable, "-m", "aot_core.stages", str(tmp_path / "spec.json")]
        process = subprocess.Popen(command, stdout=log, stderr=log)
        while not list(progress.glob("update-000009")):
            assert process.poll() is None, (tmp_path / "log").read_text()
            time.sleep(0.005)
        os.kill(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    assert LocalStore(tmp_path / "killed").find(spec.stage, spec.key) is None

    again = execute(spec).record
    assert again is not None
    assert again.artifact.sha256 == whole.artifact.sha256, "weights, tactics, curve and pictures, to the bit"
    assert again.outputs == whole.outputs
    assert not progress.exists(), "nothing is left of what it needed"


def test_curation_writes_a_data_set_whose_truths_hold(
    store: LocalStore, dataset: ArtifactRef, attacker: ArtifactRef, defender: ArtifactRef, tmp_path: Path
) -> None:
    inputs = CurateInputs(
        dataset=dataset, attacker=attacker, defender=defender, attacker_base=ATTACKER, defender_base=DEFENDER
    )
    config = CurateConfig(scenes=12, minimum=4, gallery_rows=2)
    place = context(store, tmp_path)
    outputs = run_curate(config, inputs, place)
    assert outputs.edited >= outputs.intact >= outputs.confined >= outputs.semantic >= outputs.valid
    assert outputs.valid == outputs.hopeless + outputs.trivial + outputs.hard
    assert json.loads((place.output / "funnel.json").read_text())["kept"] == outputs.kept
    samples = read_samples(place.output, "train")
    assert len(samples) == outputs.kept
    assert wrong_hashes(place.output) == []
    for sample in samples:
        assert sample.edited_image is not None
        assert sample.ssim is not None
        assert sample.ssim >= config.validity.min_ssim
        assert truth(sample.question.query, sample.edited_objects) == sample.question.answer_text


def test_rounds_and_curation_give_the_defender_the_tokens_that_the_config_says(
    store: LocalStore, dataset: ArtifactRef, attacker: ArtifactRef, defender: ArtifactRef, tmp_path: Path
) -> None:
    inputs = {"dataset": dataset, "attacker": attacker, "defender": defender}
    bases = {"attacker_base": ATTACKER, "defender_base": DEFENDER}
    config = CurateConfig(seed=4, scenes=6, edits_per_scene=1, minimum=1, gallery_rows=0, max_new_tokens=2)
    outputs = run_curate(config, CurateInputs(**inputs, **bases), context(store, tmp_path / "curate"))
    assert outputs.hopeless == outputs.valid, "two tokens hold no answer"
    with pytest.raises(ValueError, match="the Defender answers none of 24 clean scenes"):
        run_attacker_round(
            ROUND.model_copy(update={"max_new_tokens": 2}),
            AttackerRoundInputs(**inputs, **bases),
            context(store, tmp_path / "round"),
        )


def test_lessons_by_learnability_waste_fewer_groups(
    store: LocalStore, dataset: ArtifactRef, attacker: ArtifactRef, defender: ArtifactRef, tmp_path: Path
) -> None:
    inputs = CurateInputs(
        dataset=dataset, attacker=attacker, defender=defender, attacker_base=ATTACKER, defender_base=DEFENDER
    )
    config = CurateConfig(
        scenes=20, edits_per_scene=6, minimum=4, gallery_rows=0, temperature=1.5, learnability=LearnabilitySettings()
    )
    place = context(store, tmp_path)
    outputs = run_curate(config, inputs, place)
    assert outputs.flat_before is not None
    assert outputs.flat_after is not None
    assert outputs.flat_after < outputs.flat_before
    assert outputs.valid == outputs.hopeless + outputs.trivial + outputs.hard
    samples = read_samples(place.output, "train")
    assert len(samples) == outputs.kept
    clean = [sample.sample_id.rpartition("-edit-")[0] for sample in samples]
    assert len(set(clean)) == len(clean), "one edit a scene"
    assert run_curate(config, inputs, context(store, tmp_path / "again")) == outputs


def test_attackers_are_drawn_by_what_they_do_to_the_present_defender(
    store: LocalStore, dataset: ArtifactRef, attacker: ArtifactRef, defender: ArtifactRef, tmp_path: Path
) -> None:
    """The same Attacker twice: measured on the same scenes both have the same success, whatever their rounds said."""
    inputs = CurateInputs(
        dataset=dataset, attacker=attacker, pool=(attacker,), successes=(0.9, 0.0), defender=defender,
        attacker_base=ATTACKER, defender_base=DEFENDER,
    )  # fmt: skip
    config = CurateConfig(
        scenes=12, minimum=4, gallery_rows=0, draw="prioritised", priority=PrioritySettings(form="variance", scenes=8)
    )
    outputs = run_curate(config, inputs, context(store, tmp_path))
    assert outputs.successes["1"] == outputs.successes["2"]
    assert 0 <= outputs.successes["1"] <= 1


def test_an_attacker_of_the_pool_without_a_valid_edit_counts_in_the_funnel(
    store: LocalStore, dataset: ArtifactRef, attacker: ArtifactRef, defender: ArtifactRef, tmp_path: Path
) -> None:
    broken = Attacker.load(ATTACKER.name)
    with torch.no_grad():
        broken.pipeline.transformer.proj_out.bias[-1] = 50.0  # the gate stands open: everything is painted over
    broken.save(tmp_path / "broken")
    inputs = CurateInputs(
        dataset=dataset, attacker=attacker, pool=(store.put("attacker_round", "3" * 64, tmp_path / "broken"),),
        successes=(0.5, 0.5), defender=defender, attacker_base=ATTACKER, defender_base=DEFENDER,
    )  # fmt: skip
    config = CurateConfig(scenes=12, edits_per_scene=1, minimum=1, gallery_rows=0, draw="uniform", samples=1)
    outputs = run_curate(config, inputs, context(store, tmp_path / "curate"))
    assert outputs.edited == 12, "the broken Attacker's scenes too"
    assert 0 < outputs.valid < 12


def test_a_round_with_patience_is_bounded_and_its_tactics_may_start_afresh(
    store: LocalStore, dataset: ArtifactRef, attacker: ArtifactRef, defender: ArtifactRef, tmp_path: Path
) -> None:
    inputs = AttackerRoundInputs(
        dataset=dataset, attacker=attacker, defender=defender, attacker_base=ATTACKER, defender_base=DEFENDER
    )
    learned = context(store, tmp_path / "learned")
    run_attacker_round(ROUND, inputs, learned)
    second = inputs.model_copy(update={"attacker": store.put("attacker_round", "3" * 64, learned.output)})
    still = ROUND.tactics.model_copy(update={"learning_rate": 0.0})
    config = ROUND.model_copy(
        update={"updates": 3, "tactics": still, "patience": PatienceSettings(every=1, looks=1, rise=10.0, scenes=2)}
    )
    place = context(store, tmp_path / "kept")
    outputs = run_attacker_round(config, second, place)
    assert (outputs.updates, outputs.best_update) == (1, 0), "no reward rises by 10"
    assert (place.output / "tactics.json").read_bytes() == (learned.output / "tactics.json").read_bytes()
    place = context(store, tmp_path / "fresh")
    fresh = still.model_copy(update={"start": "fresh"})
    run_attacker_round(config.model_copy(update={"tactics": fresh}), second, place)
    assert not any(bool(parameter.any()) for *_, parameter in AttackPolicy.load(place.output).entries())
