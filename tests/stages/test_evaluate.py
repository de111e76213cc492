"""The evaluation stage on real data, the shipped editor and a small Defender with random weights."""

from pathlib import Path

import pytest
from mlflow import MlflowClient

from aot_core.attacker.editing import Attacker
from aot_core.contracts.artifact import ArtifactRef, ExternalRef
from aot_core.contracts.bank import BankConfig
from aot_core.contracts.benchmarks import BenchmarkSettings
from aot_core.contracts.evaluate import EvaluateConfig, EvaluateInputs
from aot_core.contracts.prepare_data import EffectivenessSettings, PrepareDataConfig, SplitSizes
from aot_core.data.build import BuildJob, build_dataset
from aot_core.data.dataset import read_samples
from aot_core.engine.context import StageContext
from aot_core.evaluation.items import paired, read_items
from aot_core.recipes.defender_model import build_model, build_processor, build_tokenizer
from aot_core.stages.evaluate import run_evaluate
from aot_core.store import LocalStore
from aot_core.tracking.mlflow_tracking import MlflowTracker, open_campaign_run
from tests.data.curated import Made, put_bank, put_curated
from tests.evaluation.benchmarks.conftest import write_vstar
from tests.stages.conftest import ATTACKER, DEFENDER, context, put_data_set

CONFIG = EvaluateConfig(samples=2, limit=24, gallery_rows=2, seed=5)


@pytest.fixture(scope="module")
def dataset(store: LocalStore, tmp_path_factory: pytest.TempPathFactory) -> ArtifactRef:
    return put_data_set(store, tmp_path_factory, warm_start=0, train=2, evaluate=30)


@pytest.fixture(scope="module")
def defender(tmp_path_factory: pytest.TempPathFactory) -> ExternalRef:
    folder = tmp_path_factory.mktemp("defender")
    tokenizer = build_tokenizer([f"Is there a ring?\n{x}. yes\nAnswer with \\boxed{{{x}}}." for x in "ABCDEFGH"])
    build_model(tokenizer, seed=0).save_pretrained(folder)
    build_processor(tokenizer).save_pretrained(folder)
    return ExternalRef(name=str(folder), sha256="d" * 64)


def test_every_condition_is_measured_on_the_same_questions(
    store: LocalStore, dataset: ArtifactRef, defender: ExternalRef, attacker: ArtifactRef, tmp_path: Path
) -> None:
    inputs = EvaluateInputs(
        dataset=dataset, defender_base=defender, attacker_base=ATTACKER, attackers=(attacker,), adversaries=(attacker,)
    )
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    run_id = open_campaign_run(uri, "aot", "key", "test", {})
    first = context(store, tmp_path / "first")
    first = StageContext(store, first.output, first.scratch, tracker=MlflowTracker(uri, run_id))
    outputs = run_evaluate(CONFIG, inputs, first)

    assert set(outputs.n) == {"clean", "semantic", "irrelevant", "unseen", "attacker_1", "adversary_1"}
    assert [outputs.n[name] for name in ("clean", "semantic", "irrelevant", "unseen")] == [24] * 4
    items = read_items(first.output / "items.parquet")
    by_condition = {name: [item for item in items if item.condition == name] for name in outputs.n}
    asked = {item.item_id for item in by_condition["clean"]}
    for name, group in by_condition.items():
        assert len(group) == outputs.n[name] and {item.item_id for item in group} <= asked
        assert outputs.strict[name] == sum(item.strict for item in group) / len(group)
        assert all(len(item.letters) == 2 for item in group)
    assert len(paired(by_condition["clean"], by_condition["semantic"])[0]) == 24

    # An Attacker's valid edits alone count, and two that are alike do alike: same proposals, same noise.
    assert 0 < outputs.valid["attacker_1"] <= 1
    assert outputs.n["attacker_1"] == outputs.n["adversary_1"]
    alike = [[item.letters for item in by_condition[name]] for name in ("attacker_1", "adversary_1")]
    assert alike[0] == alike[1]
    # Both kinds of questions and of edits add up to the questions that were paired.
    for by in (outputs.changes_by_question, outputs.changes_by_edit):
        counted = dict.fromkeys(set(outputs.n) - {"clean"}, 0)
        for name, change in by.items():
            counted[name.partition("/")[0]] += change.right + change.wrong
        assert counted == {name: outputs.n[name] for name in counted}
    assert all(item.edit for item in items if item.condition != "clean")
    assert outputs.worst == min(value for name, value in outputs.strict.items() if name != "clean")

    pages = sorted(path.name for path in (first.output / "pictures").iterdir())
    assert pages == [f"{name}.png" for name in sorted(set(outputs.n) - {"clean"})]
    logged = MlflowClient(uri).get_run(run_id).data.metrics
    assert logged["eval/clean"] == outputs.strict["clean"] and logged["eval/worst"] == outputs.worst

    # Again, elsewhere and without a tracker: the same bytes.
    again = context(store, tmp_path / "again")
    assert run_evaluate(CONFIG, inputs, again) == outputs
    for path in first.output.rglob("*.p*"):
        if path.is_file():
            assert path.read_bytes() == (again.output / path.relative_to(first.output)).read_bytes()


def test_fewer_questions_are_a_part_of_more(
    store: LocalStore, dataset: ArtifactRef, defender: ExternalRef, tmp_path: Path
) -> None:
    inputs = EvaluateInputs(dataset=dataset, defender_base=defender)
    few, all_ = context(store, tmp_path / "few"), context(store, tmp_path / "all")
    quick = {"samples": 1, "temperature": 0.0, "gallery_rows": 0}
    assert run_evaluate(CONFIG.model_copy(update={**quick, "limit": 10}), inputs, few).n["clean"] == 10
    outputs = run_evaluate(CONFIG.model_copy(update={**quick, "limit": None}), inputs, all_)
    assert outputs.n["clean"] == 30 and outputs.valid == {}
    assert not (all_.output / "pictures").exists()
    # Greedy answers do not depend on which other questions were asked, nor strict accuracy differ from single-shot.
    letters = {item.sample_id: item.letters for item in read_items(all_.output / "items.parquet")}
    assert all(letters[item.sample_id] == item.letters for item in read_items(few.output / "items.parquet"))
    assert outputs.strict == outputs.mean


def test_answers_may_be_as_long_as_the_config_says(store: LocalStore, dataset: ArtifactRef, tmp_path: Path) -> None:
    """A Defender that is trained to reason would be asked in vain with the default limit."""
    inputs = EvaluateInputs(dataset=dataset, defender_base=DEFENDER, families=False)
    cut_off: dict[int, float] = {}
    for limit in (2, 16):
        place = context(store, tmp_path / str(limit))
        config = CONFIG.model_copy(update={"limit": 6, "gallery_rows": 0, "max_new_tokens": limit})
        outputs = run_evaluate(config, inputs, place)
        items = read_items(place.output / "items.parquet")
        cut_off[limit] = sum(item.cut_off for item in items) / (config.samples * len(items))
        assert outputs.strict["clean"] == 0 or limit == 16
    assert cut_off == {2: 1.0, 16: 0.0}


def test_an_attacker_without_a_valid_edit_has_no_accuracy(
    store: LocalStore, dataset: ArtifactRef, defender: ExternalRef, tmp_path: Path
) -> None:
    """One whose weights are noise."""
    editor = Attacker.load(ATTACKER.name)
    for weight in editor.pipeline.transformer.parameters():
        weight.data.normal_()
    editor.pipeline.save_pretrained(tmp_path / "noise" / "model")
    noise = store.put("attacker_round", "2" * 64, tmp_path / "noise")
    inputs = EvaluateInputs(dataset=dataset, defender_base=defender, attacker_base=ATTACKER, attackers=(noise,))
    config = CONFIG.model_copy(update={"samples": 1, "limit": 8})
    outputs = run_evaluate(config, inputs, context(store, tmp_path / "run"))
    assert outputs.valid == {"attacker_1": 0.0} and outputs.n["attacker_1"] == 0
    assert "attacker_1" not in outputs.strict


def test_what_cannot_be_evaluated_is_named(
    store: LocalStore, dataset: ArtifactRef, defender: ExternalRef, attacker: ArtifactRef, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="attackers are given without attacker_base"):
        inputs = EvaluateInputs(dataset=dataset, defender_base=defender, attackers=(attacker,))
        run_evaluate(CONFIG, inputs, context(store, tmp_path / "a"))
    config = PrepareDataConfig(
        splits=SplitSizes(warm_start=0, train=2, evaluate=0), effectiveness=EffectivenessSettings(enabled=False)
    )
    build_dataset(BuildJob(config, None, tmp_path / "work"), tmp_path / "data")
    empty = store.put("prepare_data", "3" * 64, tmp_path / "data")
    with pytest.raises(ValueError, match="its split `evaluate` is empty"):
        inputs = EvaluateInputs(dataset=empty, defender_base=defender)
        run_evaluate(CONFIG, inputs, context(store, tmp_path / "b"))


def test_the_bank_s_suite_is_asked_beside_the_exam(
    store: LocalStore, dataset: ArtifactRef, defender: ExternalRef, tmp_path: Path
) -> None:
    config = CONFIG.model_copy(update={"limit": 6, "gallery_rows": 1})
    inputs = EvaluateInputs(dataset=dataset, defender_base=defender)
    plain = run_evaluate(config, inputs, context(store, tmp_path / "plain"))
    # Two edits of every scene: each is a question of its own, and there are more than `limit`.
    curated = put_curated(store, tmp_path / "curated", [Made(n, edit) for n in range(30) for edit in (0, 3)])
    bank, made = put_bank(store, tmp_path / "bank", [curated], BankConfig(suite=0.5))
    here = context(store, tmp_path / "suite")
    outputs = run_evaluate(config, inputs.model_copy(update={"bank": bank}), here)
    assert outputs.n["regression_suite"] == made.suite > 6
    items = read_items(here.output / "items.parquet", "regression_suite")
    assert len({item.item_id for item in items}) == made.suite
    assert [item.sample_id for item in items] == [one.sample_id for one in read_samples(store.fetch(bank), "evaluate")]
    assert {item.edit for item in items} == {"add"}

    # It is no attack: all that is said of those is as without it.
    assert (outputs.worst, outputs.worst_condition) == (plain.worst, plain.worst_condition)
    assert (outputs.every_attack, outputs.flips, outputs.mends) == (plain.every_attack, plain.flips, plain.mends)
    assert outputs.strict == plain.strict | {"regression_suite": outputs.strict["regression_suite"]}

    gone = next(iter(read_samples(store.fetch(bank), "evaluate")))
    (store.fetch(bank) / str(gone.edited_image)).unlink()
    with pytest.raises(ValueError, match=f"image '{gone.edited_image}' is missing from"):
        run_evaluate(config, inputs.model_copy(update={"bank": bank}), context(store, tmp_path / "gone"))
    nothing = put_curated(store, tmp_path / "nothing", [Made(1, edited=1.0)])
    empty, _ = put_bank(store, tmp_path / "empty", [nothing], BankConfig(suite=0.5))
    inputs = inputs.model_copy(update={"bank": empty})
    assert run_evaluate(config, inputs, context(store, tmp_path / "none")) == plain


def test_benchmarks_are_asked_where_their_folder_is_given(
    store: LocalStore, dataset: ArtifactRef, defender: ExternalRef, tmp_path: Path
) -> None:
    write_vstar(tmp_path / "benchmarks" / "vstar_bench")
    settings = BenchmarkSettings(names=("vstar",), batch_size=2, max_new_tokens=4)
    config = CONFIG.model_copy(update={"limit": 4, "gallery_rows": 0, "benchmarks": settings})
    inputs = EvaluateInputs(dataset=dataset, defender_base=defender)
    without = run_evaluate(config, inputs, context(store, tmp_path / "without"))
    assert without.benchmarks == {} and "bench/vstar" not in without.strict
    inputs = inputs.model_copy(update={"benchmark_folder": ExternalRef(name=str(tmp_path / "benchmarks"))})
    runs = [context(store, tmp_path / name) for name in ("first", "again")]
    first, again = (run_evaluate(config, inputs, run) for run in runs)
    assert first == again, "the same figures to the last item"
    assert first.benchmarks["vstar"]["n"] == first.n["bench/vstar"] == 3
    assert first.benchmarks["vstar"]["seen_in_training"] == 0
    assert first.worst_condition == without.worst_condition, "a benchmark is no attack"
    for name in ("benchmarks.jsonl", "items.parquet"):
        assert (runs[0].output / name).read_bytes() == (runs[1].output / name).read_bytes()
