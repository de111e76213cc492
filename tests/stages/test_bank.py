"""The bank over editions, and a run from data to lesson and exam on the shipped pair."""

import logging
import shutil
from collections import Counter
from pathlib import Path
from typing import cast

import pytest
from PIL import Image

from aot_core.base_models.names import SHIPPED
from aot_core.contracts.artifact import ArtifactRef, ExternalRef, StageName, StageRecord
from aot_core.contracts.bank import PROVENANCE_FILE, BankConfig, BankInputs, Provenance
from aot_core.contracts.base import Frozen
from aot_core.contracts.curate import CurateConfig, CurateInputs
from aot_core.contracts.defender_round import DefenderRoundConfig, DefenderRoundInputs
from aot_core.contracts.evaluate import EvaluateConfig, EvaluateInputs
from aot_core.contracts.prepare_data import EffectivenessSettings, PrepareDataConfig, SplitSizes
from aot_core.contracts.spec import Place
from aot_core.data.bank import held_back
from aot_core.data.build import BuildJob, build_dataset
from aot_core.data.dataset import read_samples, wrong_hashes
from aot_core.engine.identity import stage_spec
from aot_core.engine.runner import execute
from aot_core.evaluation.stops import seen_in_training
from aot_core.store import LocalStore
from tests.data.curated import Made, put_bank, put_curated

SUITE = BankConfig(suite=0.3)


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


def provenance(folder: Path) -> list[Provenance]:
    return [Provenance.model_validate_json(line) for line in (folder / PROVENANCE_FILE).read_text().splitlines()]


def test_what_fooled_enters_with_where_it_comes_from(store: LocalStore, tmp_path: Path) -> None:
    withstood, half, unknown_anyway = Made(30, edited=0.75), Made(31, edited=0.5), Made(32, clean=0.5)
    first = put_curated(store, tmp_path / "first", [*(Made(n) for n in range(10)), withstood, half])
    second = put_curated(store, tmp_path / "second", [unknown_anyway, Made(0, edit=2)])
    attackers = [ArtifactRef(uri=f"aot://attacker_round/{n * 64}", sha256=n * 64) for n in "12"]
    bank, outputs = put_bank(store, tmp_path / "bank", [first, second], SUITE, attackers=attackers)
    folder = store.fetch(bank)
    samples = read_samples(folder)
    assert outputs.new == len(samples) == outputs.lessons + outputs.suite == 12
    assert (outputs.duplicates, outputs.dropped, outputs.missing) == (0, 0, 0)
    assert wrong_hashes(folder) == []
    assert [sample.split == "evaluate" for sample in samples] == [held_back(sample, 0.3) for sample in samples]
    assert outputs.suite == len(read_samples(folder, "evaluate")) > 0

    told = provenance(folder)
    assert [one.sample_id for one in told] == [sample.sample_id for sample in samples]
    assert {one.instruction for one in told} == {sample.instruction for sample in samples} != {""}
    # The hardest come first; the second round's edit is another one of scene 0, on the same side.
    assert [one.hardness for one in told] == [1.0] * 11 + [0.5]
    assert Counter((one.edition, one.round, one.curated, one.attacker) for one in told) == {
        ("weekly/1", 1, first, attackers[0]): 11,
        ("weekly/1", 2, second, attackers[1]): 1,
    }
    assert len({sample.split for sample in samples if sample.scene.scene_id == "scene-0"}) == 1

    again, _ = put_bank(store, tmp_path / "again", [first, second], SUITE, attackers=attackers)
    assert again.sha256 == bank.sha256, "the same bytes"


def test_the_same_again_is_a_duplicate_and_nothing_changes_sides(store: LocalStore, tmp_path: Path) -> None:
    curated = put_curated(store, tmp_path / "first", [Made(n) for n in range(10)])
    bank, _ = put_bank(store, tmp_path / "one", [curated], SUITE)
    # In the next edition: the same edits a shade lighter, other edits of the same scenes, and one new scene.
    lighter = [Made(n, shade=2) for n in range(10)]
    others = [Made(n, edit=3, edited=0.25) for n in range(10)]
    later = put_curated(store, tmp_path / "second", [*lighter, *others, Made(50)])
    grown, outputs = put_bank(store, tmp_path / "two", [later], SUITE, "weekly/2", bank)
    assert (outputs.duplicates, outputs.new) == (10, 11)
    before, after = (read_samples(store.fetch(ref)) for ref in (bank, grown))
    assert [one.sample_id for one in after[:10]] == [one.sample_id for one in before]
    sides = {one.scene.scene_id: one.split for one in before}
    assert all(sides.get(one.scene.scene_id, one.split) == one.split for one in after)
    assert Counter(one.edition for one in provenance(store.fetch(grown))) == {"weekly/1": 10, "weekly/2": 11}


def test_a_full_bank_keeps_the_hardest_of_each_edition(store: LocalStore, tmp_path: Path) -> None:
    first = put_curated(store, tmp_path / "first", [Made(n, edited=(n % 3) / 4) for n in range(12)])
    bank, _ = put_bank(store, tmp_path / "one", [first], SUITE)
    second = put_curated(store, tmp_path / "second", [Made(n, edited=0.5) for n in range(20, 32)])
    small = SUITE.model_copy(update={"capacity": 10})
    full, outputs = put_bank(store, tmp_path / "two", [second], small, "weekly/2", bank)
    assert (outputs.lessons + outputs.suite, outputs.new, outputs.dropped) == (10, 5, 14)
    hardness = {
        edition: sorted(one.hardness for one in provenance(store.fetch(full)) if one.edition == edition)
        for edition in ("weekly/1", "weekly/2")
    }
    assert hardness == {"weekly/1": [0.75, 1.0, 1.0, 1.0, 1.0], "weekly/2": [0.5] * 5}
    # With more room again it grows by what comes.
    third = put_curated(store, tmp_path / "third", [Made(n) for n in range(40, 44)])
    _, outputs = put_bank(store, tmp_path / "three", [third], SUITE, "weekly/3", full)
    assert (outputs.lessons + outputs.suite, outputs.dropped) == (14, 0)


def test_an_edit_whose_picture_is_gone_or_damaged_is_left_out_and_said(
    store: LocalStore, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    curated = put_curated(store, tmp_path / "first", [Made(n) for n in range(6)])
    bank, _ = put_bank(store, tmp_path / "one", [curated], SUITE)
    gone, damaged, *whole = read_samples(store.fetch(bank))
    (store.fetch(bank) / str(gone.edited_image)).unlink()
    Image.new("RGB", (64, 64)).save(store.fetch(bank) / damaged.image)
    with caplog.at_level(logging.WARNING):
        mended, outputs = put_bank(store, tmp_path / "two", [], SUITE, "weekly/2", bank)
    assert (outputs.missing, outputs.new, outputs.lessons + outputs.suite) == (2, 0, 4)
    assert f"2 of 6 edits are left out, their pictures are gone or damaged: {gone.sample_id}, " in caplog.text
    assert read_samples(store.fetch(mended)) == whole


def test_an_empty_bank_is_a_bank(store: LocalStore, tmp_path: Path) -> None:
    curated = put_curated(store, tmp_path / "first", [Made(1, edited=1.0)])
    bank, outputs = put_bank(store, tmp_path / "one", [curated], SUITE)
    assert outputs.model_dump() == dict.fromkeys(outputs.model_dump(), 0)
    fooling = put_curated(store, tmp_path / "second", [Made(1)])
    _, outputs = put_bank(store, tmp_path / "two", [fooling], SUITE, "weekly/2", bank)
    assert outputs.new == 1


def test_what_is_no_bank_of_this_kind_is_refused(store: LocalStore, tmp_path: Path) -> None:
    curated = put_curated(store, tmp_path / "first", [Made(1)])
    bank, _ = put_bank(store, tmp_path / "one", [curated], SUITE)
    for number, share in enumerate((0.25, 0.5)):
        with pytest.raises(ValueError, match=r"Set bank.suite to 0.3, or begin a new series"):
            put_bank(store, tmp_path / f"other-{number}", [curated], BankConfig(suite=share), "weekly/2", bank)
    with pytest.raises(ValueError, match=r"is not a bank: bank.json is missing"):
        put_bank(store, tmp_path / "none", [curated], SUITE, "weekly/2", curated)
    with pytest.raises(ValueError, match=r"attackers: 1 for 2 rounds"):
        BankInputs(curated=(curated, curated), attackers=(curated,), edition="weekly/1")


def test_from_data_to_lesson_and_exam(store: LocalStore, tmp_path: Path) -> None:
    """Two editions on the shipped pair, every stage by its spec: what fooled in the first is taught and examined in
    the second, and no question is both."""
    place = Place(store=str(store.root), device="cpu", threads=1)

    def done(stage: StageName, config: Frozen, inputs: Frozen) -> StageRecord:
        return cast("StageRecord", execute(stage_spec(stage, config, inputs, place)).record)

    def shipped(stage: StageName, name: str) -> ArtifactRef:
        shutil.copytree(SHIPPED / name, tmp_path / name / "model")
        return store.put(stage, "1" * 64, tmp_path / name)

    splits = SplitSizes(warm_start=0, train=40, evaluate=12)
    build_dataset(
        BuildJob(
            PrepareDataConfig(splits=splits, effectiveness=EffectivenessSettings(enabled=False)),
            None,
            tmp_path / "work",
        ),
        tmp_path / "data",
    )
    data = store.put("prepare_data", "0" * 64, tmp_path / "data")
    editor, base = ExternalRef(name="aot-tiny-edit"), ExternalRef(name="aot-tiny-vl")
    attacker = shipped("attacker_round", "aot-tiny-edit")
    defender = shipped("warm_start_defender", "aot-tiny-vl")
    match = CurateInputs(dataset=data, attacker=attacker, defender=defender, attacker_base=editor, defender_base=base)
    curated = [
        done("curate", CurateConfig(seed=seed, scenes=40, edits_per_scene=1, temperature=1.5, gallery_rows=0), match)
        for seed in (1, 2)
    ]
    config = BankConfig(suite=0.5)
    inputs = BankInputs(curated=(curated[0].artifact,), attackers=(attacker,), edition="weekly/1")
    bank = done("bank", config, inputs)
    assert bank.outputs["lessons"] > 0 and bank.outputs["suite"] > 0, "the tiny Defender is fooled now and then"

    settings = {"generations": 1, "prompts": 2, "group_size": 2, "held_back": 0.5, "replay_share": 0.2}
    lesson = DefenderRoundInputs(curated=curated[1].artifact, defender=defender, base=base, bank=bank.artifact)
    trained = done("defender_round", DefenderRoundConfig.model_validate(settings), lesson)
    assert trained.outputs["replayed"] > 0 and trained.outputs["held_back"] > 0
    kept = curated[1].outputs["kept"] - trained.outputs["held_back"] + trained.outputs["replayed"]
    assert trained.outputs["prompts"] == kept + round(kept / 3), "and a quarter of clean scenes"

    exam = EvaluateInputs(dataset=data, defender=trained.artifact, defender_base=base, bank=bank.artifact)
    answered = done("evaluate", EvaluateConfig(limit=12, samples=1, gallery_rows=0), exam)
    assert answered.outputs["n"]["regression_suite"] == bank.outputs["suite"]

    folders = (store.fetch(data), [store.fetch(curated[1].artifact)], store.fetch(bank.artifact))
    sound, careless = seen_in_training(*folders, 0.5), seen_in_training(*folders)
    suite = len({sample.question.text + sample.scene.source_hash for sample in read_samples(folders[2], "evaluate")})
    assert not sound.stopped and sound.told.endswith(
        f"0 of {suite} questions of the regression suite stand among the lessons'"
    )
    assert careless.stopped, "the same scenes were curated again: without holding back they would have been taught"
