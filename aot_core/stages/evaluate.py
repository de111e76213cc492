"""`evaluate`: data set, Defender and Attackers in; strict accuracy with intervals, every answer and galleries
out.

    data set -> clean scenes, procedural distractors --+
    Attackers -> the clean scenes as they edit them ---+-> conditions -> the Defender, asked k times -> items -> figures
    bank -> the regression suite ----------------------+                                              |
    benchmark folder -> public questions ------------------------------> an engine, asked k times ----+

The artifact holds `items.parquet` (an answered question a row) and `pictures/`.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from aot_core.contracts.artifact import ArtifactRef, ExternalRef
from aot_core.contracts.evaluate import (
    CLEAN,
    COMPLETIONS_FILE,
    ITEMS_FILE,
    EvaluateConfig,
    EvaluateInputs,
    EvaluateOutputs,
)
from aot_core.data.dataset import read_samples
from aot_core.defender.answering import Defender
from aot_core.defender.checkpoints import load_defender
from aot_core.engine.context import StageContext
from aot_core.evaluation.benchmarks.asking import ask_benchmarks
from aot_core.evaluation.benchmarks.contamination import count_seen, training_sources
from aot_core.evaluation.conditions import clean_condition, family_conditions
from aot_core.evaluation.engines.opening import open_engine
from aot_core.evaluation.engines.protocol import Journal
from aot_core.evaluation.figures import summarise
from aot_core.evaluation.items import Condition, Item, ask, write_items
from aot_core.evaluation.pictures import fooling_gallery
from aot_core.evaluation.regression_suite import suite_conditions
from aot_core.stages.helpers.attacks import attacked_conditions
from aot_core.stages.helpers.pictures import keep_picture
from aot_core.stages.helpers.worst_of import worst_of_n


def run_evaluate(config: EvaluateConfig, inputs: EvaluateInputs, context: StageContext) -> EvaluateOutputs:
    """Ask the Defender under every condition.

    Raises ValueError where the data set holds no `evaluate` split, or Attackers come without their base.
    """
    folder = context.fetch(inputs.dataset)
    samples = read_samples(folder, "evaluate")
    if not samples:
        raise ValueError("dataset: its split `evaluate` is empty; raise prepare_data.splits.evaluate")
    clean = clean_condition(folder, samples, config.limit, config.seed)
    families = family_conditions(folder, samples, config.limit, config.seed) if inputs.families else []
    attacked, valid = attacked_conditions(config, inputs, context, clean)
    conditions = [clean, *families, *attacked]

    defender = load_defender(
        context.fetch(inputs.defender) if inputs.defender else None,
        context.model(inputs.defender_base),
        context.device,
        config.dtype,
        max_new_tokens=config.max_new_tokens,
    )
    conditions += worst_of_n(config, inputs, context, clean, defender)
    suite = suite_conditions(context.fetch(inputs.bank)) if inputs.bank else []
    answered: dict[str, list[Item]] = {}
    for condition in [*conditions, *suite]:
        items = ask(defender, condition, samples=config.samples, temperature=config.temperature, seed=config.seed)
        answered[condition.name] = items
        context.tracker.log_metrics({f"eval/{condition.name}": float(np.mean([item.strict for item in items]))})
    public, benchmarks = _benchmarks(config, inputs, context, defender)

    items = [*(item for group in answered.values() for item in group), *public]
    write_items(context.output / ITEMS_FILE, items)
    if config.gallery_rows:
        _galleries(config.gallery_rows, context, conditions, answered)
    outputs = summarise(items, valid).model_copy(update={"benchmarks": benchmarks})
    context.tracker.log_metrics(
        {"eval/worst": outputs.worst, **{f"eval/valid_{name}": share for name, share in valid.items()}}
    )
    return outputs


def _benchmarks(
    config: EvaluateConfig, inputs: EvaluateInputs, context: StageContext, defender: Defender
) -> tuple[list[Item], dict[str, dict[str, float]]]:
    """Ask the public benchmarks; what an earlier try of this stage has answered is not asked again."""
    settings = config.benchmarks
    if inputs.benchmark_folder is None or not settings.names:
        return [], {}
    items: list[Item] = []
    figures: dict[str, dict[str, float]] = {}
    path = (context.progress or context.scratch) / COMPLETIONS_FILE
    who = _weights_of(inputs.defender, inputs.defender_base)
    trained = training_sources(context.fetch(inputs.dataset))
    folder, cache = Path(inputs.benchmark_folder.name), context.scratch / "benchmarks"
    with (
        open_engine(settings, defender, who, config.temperature, config.seed, context.scratch) as engine,
        Journal(path, engine.identity) as journal,
    ):
        for done in ask_benchmarks(settings, folder, cache, engine, journal, config.samples, config.seed):
            figures[done.name] = {**done.figures, "seen_in_training": float(count_seen(done.questions, trained))}
            items += done.items
            context.tracker.log_metrics({f"bench/{done.name}/{key}": v for key, v in figures[done.name].items()})
        journal.export(context.output / COMPLETIONS_FILE)
    return items, figures


def _weights_of(defender: ArtifactRef | None, base: ExternalRef) -> str:
    """What identifies the weights that answer."""
    return defender.sha256 if defender else base.sha256 or base.name


def _galleries(
    rows: int, context: StageContext, conditions: Sequence[Condition], answered: dict[str, list[Item]]
) -> None:
    """A gallery of every condition but the clean one, which comes first."""
    clean, *others = conditions
    for condition in others:
        page = fooling_gallery(condition, answered[condition.name], clean, answered[CLEAN], rows)
        keep_picture(context, condition.name, page, f"evaluate_{condition.name}")
