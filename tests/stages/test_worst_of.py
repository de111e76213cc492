"""Worst of n on the shipped pair, and what curation's rivals are made of."""

import sys
from pathlib import Path

import numpy as np
import pytest

from aot_core.contracts.artifact import ArtifactRef
from aot_core.contracts.evaluate import WORST_OF_N, EvaluateConfig, EvaluateInputs
from aot_core.data.dataset import read_samples, wrong_hashes
from aot_core.evaluation.items import read_items
from aot_core.stages.evaluate import run_evaluate
from aot_core.store import LocalStore
from aot_core.worlds.truth import truth
from tests.stages.conftest import ATTACKER, DEFENDER, context, put_data_set

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def dataset(store: LocalStore, tmp_path_factory: pytest.TempPathFactory) -> ArtifactRef:
    return put_data_set(store, tmp_path_factory, warm_start=0, train=30, evaluate=40)


def examined(store: LocalStore, dataset: ArtifactRef, attacker: ArtifactRef, folder: Path, worst_of: int):
    config = EvaluateConfig(samples=2, limit=24, gallery_rows=1, temperature=0.5, worst_of=worst_of)
    inputs = EvaluateInputs(
        dataset=dataset, defender_base=DEFENDER, attacker_base=ATTACKER, attackers=(attacker,), families=False
    )
    return run_evaluate(config, inputs, context(store, folder)), read_items(folder / "output" / "items.parquet")


def test_the_worst_of_n_is_no_better_than_any_single_edit_and_changes_no_other_figure(
    store: LocalStore, dataset: ArtifactRef, attacker: ArtifactRef, tmp_path: Path
) -> None:
    without, _ = examined(store, dataset, attacker, tmp_path / "without", 0)
    outputs, items = examined(store, dataset, attacker, tmp_path / "with", 6)
    assert WORST_OF_N not in without.strict
    assert outputs.strict[WORST_OF_N] <= outputs.strict["attacker_1"]
    assert outputs.n[WORST_OF_N] >= outputs.n["attacker_1"], "of six edits one is valid more often"
    assert (outputs.worst, outputs.worst_condition, outputs.every_attack) == (
        without.worst, without.worst_condition, without.every_attack
    )  # fmt: skip
    assert {name: outputs.strict[name] for name in without.strict} == without.strict
    asked = [item.item_id for item in items if item.condition == WORST_OF_N]
    assert len(set(asked)) == len(asked), "one edit a scene"
    assert (tmp_path / "with" / "output" / "pictures" / f"{WORST_OF_N}.png").is_file()


def test_rivals_of_self_play_keep_the_truth(
    store: LocalStore, dataset: ArtifactRef, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [str(BENCHMARKS), *sys.path])
    import rivals

    by_arm = {
        "static": rivals.static_lessons(store, dataset, 20, seed=3),
        "pictures": rivals.picture_lessons(store, dataset, 20, seed=3),
    }
    by_arm["oracle"] = rivals.oracle_lessons(store, by_arm["static"])
    misleading = {}
    for arm, reference in by_arm.items():
        folder = store.fetch(reference)
        samples = read_samples(folder)
        assert 15 <= len(samples) <= 20
        assert wrong_hashes(folder) == []
        for sample in samples:
            assert sample.edited_image is not None
            assert truth(sample.question.query, sample.edited_objects) == sample.question.answer_text
        akin = [
            rivals.words_in_question(sample.question.query, list(sample.scene.objects)).isdisjoint(
                edit.added.attributes.values()
            )
            for sample in samples
            for edit in sample.edits
            if edit.added is not None
        ]
        misleading[arm] = 1 - float(np.mean(akin)) if akin else 0.0
    assert misleading["oracle"] == 1.0, "it is told what misleads"
    assert 0.1 < misleading["static"] < 0.9, "it is not"
    assert misleading["pictures"] == 0.0
    assert rivals.static_lessons(store, dataset, 20, seed=3) == by_arm["static"]
