"""Curation with mutation and replay, on real data and the shipped pair, as small as it goes."""

import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from aot_core.attacker.curation import Funnel
from aot_core.attacker.reward import probability
from aot_core.base_models.names import SHIPPED
from aot_core.contracts.artifact import ArtifactRef
from aot_core.contracts.curate import (
    LINEAGE_FILE,
    CurateConfig,
    CurateInputs,
    LearnabilitySettings,
    Lineage,
    MutationSettings,
    ReplaySettings,
)
from aot_core.contracts.scene import Sample
from aot_core.data.dataset import load_images, read_samples, wrong_hashes
from aot_core.defender.checkpoints import load_defender
from aot_core.stages.curate import run_curate
from aot_core.store import LocalStore
from aot_core.worlds.instructions import read_instruction
from aot_core.worlds.truth import truth
from tests.stages.conftest import ATTACKER, DEFENDER, context, put_data_set

CONFIG = CurateConfig(
    seed=1,
    scenes=10,
    edits_per_scene=2,
    minimum=1,
    gallery_rows=0,
    samples=1,
    temperature=1.5,
    learnability=LearnabilitySettings(),
)
MUTATING = CONFIG.model_copy(update={"mutation": MutationSettings(share=1.0, children=2)})


@pytest.fixture(scope="module")
def inputs(store: LocalStore, attacker: ArtifactRef, tmp_path_factory: pytest.TempPathFactory) -> CurateInputs:
    dataset = put_data_set(store, tmp_path_factory, warm_start=0, train=14, evaluate=0)
    folder = tmp_path_factory.mktemp("defender")
    shutil.copytree(SHIPPED / DEFENDER.name, folder / "model")
    defender = store.put("warm_start_defender", "1" * 64, folder)
    return CurateInputs(
        dataset=dataset, attacker=attacker, defender=defender, attacker_base=ATTACKER, defender_base=DEFENDER
    )


@pytest.fixture(scope="module")
def other_defender(store: LocalStore, tmp_path_factory: pytest.TempPathFactory) -> ArtifactRef:
    """A Defender that has changed."""
    folder = tmp_path_factory.mktemp("other")
    shutil.copytree(SHIPPED / DEFENDER.name, folder / "model")
    weights = load_file(folder / "model" / "model.safetensors")
    save_file({name: 0.97 * tensor for name, tensor in weights.items()}, folder / "model" / "model.safetensors")
    return store.put("defender_round", "5" * 64, folder)


def lineage(folder: Path) -> list[Lineage]:
    return [Lineage.model_validate_json(line) for line in (folder / LINEAGE_FILE).read_text().splitlines()]


def things(instruction: str) -> set[tuple[str, str, str | None]]:
    return {(one.kind, str(one.where), one.added) for one in read_instruction(instruction)}


def assert_fair(samples: list[Sample], config: CurateConfig) -> None:
    for sample in samples:
        assert sample.ssim is not None and sample.ssim >= config.validity.min_ssim
        assert truth(sample.question.query, sample.edited_objects) == sample.question.answer_text
        assert all(edit.region.overlap(box) == 0 for edit in sample.edits for box in sample.question.protected)


def test_children_are_painted_checked_counted_and_told_apart(
    store: LocalStore, inputs: CurateInputs, tmp_path: Path
) -> None:
    place = context(store, tmp_path / "a")
    outputs = run_curate(MUTATING, inputs, place)
    assert list(outputs.mutation) == ["1", "2"]
    painted = sum(one.edited for one in outputs.mutation.values())
    assert 2 * 2 * 8 <= painted <= 2 * 2 * 10
    assert outputs.edited == 20 + painted
    assert outputs.valid == outputs.hopeless + outputs.trivial + outputs.hard
    for one in outputs.mutation.values():
        assert 0 < one.valid <= one.edited
        assert one.better <= one.valid
        assert one.children is not None and 0 <= one.children <= 0.25

    samples, lines = read_samples(place.output, "train"), lineage(place.output)
    assert_fair(samples, MUTATING)
    assert wrong_hashes(place.output) == []
    assert [line.edit for line in lines if line.kept] == [sample.sample_id for sample in samples]
    by_name = {line.edit: line for line in lines}
    assert len(by_name) == len(lines)
    for number, one in outputs.mutation.items():
        assert one.kept == sum(line.kept and line.generation == int(number) for line in lines)
    children = [line for line in lines if line.parent is not None]
    assert children and sum(line.kept for line in children) > 0, "some children are among the kept"
    for child in children:
        parent = by_name[str(child.parent)]
        assert child.generation == parent.generation + 1
        assert child.attacker == inputs.attacker
        added = len(read_instruction(child.instruction)) - len(read_instruction(parent.instruction))
        assert added == {"more": 1, "fewer": -1}.get(str(child.change), 0)
        if added == 0:
            told = {where for _, where, _ in things(child.instruction)}
            before = {where for _, where, _ in things(parent.instruction)}
            assert len(told - before) == (1 if child.change == "move" else 0)
    assert outputs.learnability == pytest.approx(
        sum(line.p * (1 - line.p) for line in lines if line.kept) / outputs.kept
    )

    again = context(store, tmp_path / "again")
    assert run_curate(MUTATING, inputs, again) == outputs
    assert all(
        (again.output / name).read_bytes() == (place.output / name).read_bytes()
        for name in (LINEAGE_FILE, "metadata.parquet", "funnel.json")
    )


def test_off_it_paints_nothing_and_leaves_no_trace(store: LocalStore, inputs: CurateInputs, tmp_path: Path) -> None:
    place = context(store, tmp_path / "off")
    outputs = run_curate(CONFIG, inputs.model_copy(update={"earlier": (inputs.dataset,)}), place)
    assert outputs.edited == 20
    assert (outputs.mutation, outputs.replay, outputs.learnability) == ({}, None, None)
    assert not (place.output / LINEAGE_FILE).exists()
    assert set(Funnel.model_validate_json((place.output / "funnel.json").read_bytes()).model_dump()) == set(
        Funnel.model_fields
    )


def test_earlier_edits_are_replayed_by_what_the_present_defender_makes_of_them(
    store: LocalStore, inputs: CurateInputs, other_defender: ArtifactRef, tmp_path: Path
) -> None:
    replaying = CONFIG.model_copy(update={"replay": ReplaySettings(share=0.5)})
    first = context(store, tmp_path / "first")
    begun = run_curate(replaying, inputs, first)
    assert begun.replay is not None
    assert (begun.replay.candidates, begun.replay.kept) == (0, 0)
    curated = store.put("curate", "6" * 64, first.output)

    second = context(store, tmp_path / "second")
    now = inputs.model_copy(update={"defender": other_defender, "earlier": (curated,)})
    outputs = run_curate(replaying.model_copy(update={"seed": 2}), now, second)
    assert outputs.replay is not None
    assert outputs.replay.candidates == begun.kept
    assert 0 < outputs.replay.kept <= min(outputs.replay.learnable, outputs.kept // 2 + 1)
    assert outputs.replay.valid == begun.kept, "they were valid by the same settings"

    then = {line.edit: line.p for line in lineage(first.output)}
    samples = {sample.sample_id: sample for sample in read_samples(second.output, "train")}
    assert_fair(list(samples.values()), CONFIG)
    again = [line for line in lineage(second.output) if line.replayed is not None]
    assert len(again) == outputs.replay.kept
    defender = load_defender(store.fetch(other_defender), DEFENDER.name)
    for line in again:
        assert line.curated == curated
        sample = samples[line.edit]
        assert sample.edited_image is not None
        letters = defender.letter_logprobs(load_images(second.output, [sample.edited_image]), [sample.question])
        assert line.p == pytest.approx(probability(letters[0], sample.question.answer, 1.5), abs=1e-4)
    assert any(abs(line.p - then[str(line.replayed)]) > 1e-3 for line in again), "measured anew, not remembered"


def test_what_was_replayed_twice_is_one_candidate_and_may_be_mutated(
    store: LocalStore, inputs: CurateInputs, tmp_path: Path
) -> None:
    first = context(store, tmp_path / "first")
    begun = run_curate(CONFIG, inputs, first)
    curated = store.put("curate", "7" * 64, first.output)
    both = inputs.model_copy(update={"earlier": (curated, curated)})
    config = MUTATING.model_copy(update={"seed": 3, "replay": ReplaySettings(share=0.5), "edits_per_scene": 1})
    place = context(store, tmp_path / "both")
    outputs = run_curate(config, both, place)
    assert outputs.replay is not None and outputs.replay.candidates == begun.kept
    lines = lineage(place.output)
    names = {line.edit: line for line in lines}
    assert any(line.parent is not None and names[line.parent].replayed is not None for line in lines)
