"""`evaluate`: data set, Defender and Attackers in; strict accuracy with intervals, every answer and galleries
out.

The artifact holds `items.parquet` (an answered question a row) and `pictures/`. The one place where
evaluation meets Attackers and Defender; each of the three knows nothing of the others.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from PIL.Image import Image
from tqdm import tqdm

from aot_core.attacker.editing import Attacker
from aot_core.attacker.scenes import Target, propose_for
from aot_core.attacker.tactics import AttackPolicy
from aot_core.contracts.benchmarks import BenchmarkSettings
from aot_core.contracts.evaluate import (
    CLEAN,
    COMPLETIONS_FILE,
    ITEMS_FILE,
    EvaluateConfig,
    EvaluateInputs,
    EvaluateOutputs,
    adversary_condition,
    attacker_condition,
)
from aot_core.contracts.evaluate import VERSION as VERSION
from aot_core.contracts.protocols import Answerer
from aot_core.contracts.scene import DistractorFamily, Sample
from aot_core.contracts.summary import PICTURES_FOLDER
from aot_core.data.dataset import load_image, read_samples, save_image
from aot_core.defender.answering import Defender
from aot_core.defender.checkpoints import load_defender
from aot_core.engine.context import StageContext
from aot_core.evaluation.benchmarks.asking import choose_questions, run_benchmark
from aot_core.evaluation.benchmarks.contamination import count_seen, training_sources
from aot_core.evaluation.benchmarks.readers import read_benchmark
from aot_core.evaluation.engines.openai_engine import OpenAIEngine
from aot_core.evaluation.engines.protocol import Engine, Journal
from aot_core.evaluation.engines.transformers_engine import TransformersEngine
from aot_core.evaluation.engines.vllm_server import vllm_server
from aot_core.evaluation.figures import summarise
from aot_core.evaluation.items import (
    Condition,
    Item,
    ask,
    choose,
    clean_samples,
    edit_kind,
    family_samples,
    item_id,
    write_items,
)
from aot_core.evaluation.pictures import fooling_gallery
from aot_core.evaluation.regression_suite import suite_conditions
from aot_core.stages.judging import load_judge
from aot_core.worlds.validity import checker_for

_CHUNK = 64
"""Scenes edited together: so many pictures are in memory at once."""


def run_evaluate(config: EvaluateConfig, inputs: EvaluateInputs, context: StageContext) -> EvaluateOutputs:
    """Ask the Defender under every condition.

    Raises ValueError where the data set holds no `evaluate` split, or Attackers come without their base.
    """
    folder = context.fetch(inputs.dataset)
    samples = read_samples(folder, "evaluate")
    if not samples:
        raise ValueError("dataset: its split `evaluate` is empty; raise prepare_data.splits.evaluate")
    clean = Condition(CLEAN, choose(clean_samples(samples), config.limit, config.seed), partial(_open_clean, folder))
    attacked, valid = _attacks(config, inputs, context, clean)
    families = _families(config, folder, samples) if inputs.families else []
    conditions = [clean, *families, *attacked]
    defender = load_defender(
        context.fetch(inputs.defender) if inputs.defender else None,
        context.model(inputs.defender_base),
        context.device,
        config.dtype,
    )
    answered: dict[str, list[Item]] = {}
    for condition in [*conditions, *(suite_conditions(context.fetch(inputs.bank)) if inputs.bank else [])]:
        items = ask(defender, condition, samples=config.samples, temperature=config.temperature, seed=config.seed)
        answered[condition.name] = items
        context.tracker.log_metrics({f"eval/{condition.name}": float(np.mean([item.strict for item in items]))})
    items = [item for group in answered.values() for item in group]
    asked, figures = _benchmarks(config, inputs, context, defender)
    items += asked
    write_items(context.output / ITEMS_FILE, items)
    _show(config, context, conditions, answered)
    outputs = summarise(items, valid).model_copy(update={"benchmarks": figures})
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
    who = inputs.defender.sha256 if inputs.defender else inputs.defender_base.sha256 or inputs.defender_base.name
    items: list[Item] = []
    figures: dict[str, dict[str, float]] = {}
    path = (context.progress or context.scratch) / COMPLETIONS_FILE
    trained = training_sources(context.fetch(inputs.dataset))
    with (
        open_engine(settings, defender, who, config.temperature, config.seed, context.scratch) as engine,
        Journal(path, engine.identity) as journal,
    ):
        for name in settings.names:
            questions = read_benchmark(name, Path(inputs.benchmark_folder.name), context.scratch / "benchmarks")
            questions = choose_questions(questions, settings.limit, config.seed)
            asked, figures[name] = run_benchmark(questions, engine, config.samples, journal)
            figures[name]["seen_in_training"] = float(count_seen(questions, trained))
            items += asked
            context.tracker.log_metrics({f"bench/{name}/{key}": value for key, value in figures[name].items()})
        journal.export(context.output / COMPLETIONS_FILE)
    return items, figures


@contextmanager
def open_engine(
    settings: BenchmarkSettings, defender: Defender | None, name: str, temperature: float, seed: int, scratch: Path
) -> Iterator[Engine]:
    """Who answers benchmarks: the endpoint of the settings, vLLM started on the Defender, or the Defender itself.

    With vLLM the Defender's weights leave the device for good: the server needs the room.

    Args:
        name: tells the Defender's weights.
        scratch: where the weights are written for vLLM, and its messages.
    """
    sampling: dict[str, Any] = {
        "max_new_tokens": settings.max_new_tokens,
        "temperature": temperature,
        "seed": seed,
    }
    if settings.endpoint is not None:
        yield OpenAIEngine(settings.endpoint, **sampling)
        return
    assert defender is not None, "without an endpoint a Defender is loaded"
    if settings.vllm is None:
        yield TransformersEngine(
            defender.model, defender.processor, name=name, batch_size=settings.batch_size, **sampling
        )
        return
    folder = scratch / "served"
    defender.model.save_pretrained(folder)
    defender.processor.save_pretrained(folder)
    defender.model.to("cpu")
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    with vllm_server(folder, settings.vllm, scratch / "vllm.log") as endpoint:
        yield OpenAIEngine(endpoint, weights=name, **sampling)


def _families(config: EvaluateConfig, folder: Path, samples: list[Sample]) -> list[Condition]:
    """A condition for every distractor family that the data set holds."""
    conditions: list[Condition] = []
    for family in get_args(DistractorFamily):
        pairs = choose(family_samples(samples, family), config.limit, config.seed)
        if pairs:
            told = {sample.sample_id: sample.instruction for sample in pairs}
            kinds = {sample.sample_id: edit_kind(sample.edits) for sample in pairs}
            conditions.append(Condition(family, pairs, partial(_open_edited, folder), told, kinds))
    return conditions


def _attacks(
    config: EvaluateConfig, inputs: EvaluateInputs, context: StageContext, clean: Condition
) -> tuple[list[Condition], dict[str, float]]:
    """The clean scenes as every Attacker edits them, valid edits alone, and the share of edits that were
    valid."""
    numbers = inputs.numbers or tuple(range(1, len(inputs.attackers) + 1))
    players = [(attacker_condition(n), reference) for n, reference in zip(numbers, inputs.attackers, strict=True)]
    players += [(adversary_condition(n), reference) for n, reference in enumerate(inputs.adversaries, start=1)]
    if players and inputs.attacker_base is None:
        raise ValueError("attackers are given without attacker_base; name the base that they were trained from")
    photo_judge = load_judge(config.validity, inputs.judge, context) if players else None
    conditions: list[Condition] = []
    valid: dict[str, float] = {}
    for name, reference in players:
        assert inputs.attacker_base is not None
        weights = context.fetch(reference)
        attacker = Attacker.load(context.model(inputs.attacker_base), weights, context.device, steps=config.steps)
        policy = AttackPolicy.load(weights)
        condition, valid[name] = _attack(config, attacker, policy, clean, name, context.scratch / name, photo_judge)
        if condition.samples:
            conditions.append(condition)
    return conditions, valid


def _attack(
    config: EvaluateConfig,
    attacker: Attacker,
    policy: AttackPolicy,
    clean: Condition,
    name: str,
    folder: Path,
    photo_judge: Answerer | None,
) -> tuple[Condition, float]:
    """Let one Attacker edit the clean scenes; every Attacker gets the same random numbers."""
    told: dict[str, str] = {}
    kinds: dict[str, str] = {}
    kept: list[Sample] = []
    edits = 0
    starts = range(0, len(clean.samples), _CHUNK)
    for first in tqdm(starts, desc=f"edit {name}", unit="batch", disable=None):
        targets = [Target(sample, clean.picture(sample)) for sample in clean.samples[first : first + _CHUNK]]
        # A question's own generator: its proposal does not depend on which others are asked.
        attempts = [
            attempt
            for target in targets
            if (attempt := propose_for(_rng(config.seed, target.sample), target, config.proposals, policy)) is not None
        ]
        if not attempts:
            continue
        chosen, proposals = [attempt.target for attempt in attempts], [attempt.proposal for attempt in attempts]
        cleans, asked = [target.image for target in chosen], [target.sample for target in chosen]
        edited = attacker.edit(cleans, [p.instruction for p in proposals], seed=config.seed + first)
        verdicts = checker_for(asked[0], config.validity, photo_judge).check(asked, proposals, cleans, edited)
        edits += len(edited)
        for sample, proposal, image, verdict in zip(asked, proposals, edited, verdicts, strict=True):
            if verdict.valid:
                save_image(folder, item_id(sample), image)
                told[sample.sample_id] = f"{proposal.instruction} SSIM {verdict.ssim:.3f}"
                kinds[sample.sample_id] = edit_kind(verdict.edits)
                kept.append(sample)
    return Condition(name, kept, partial(_open_attacked, folder), told, kinds), len(kept) / edits if edits else 0.0


def _show(
    config: EvaluateConfig, context: StageContext, conditions: list[Condition], answered: dict[str, list[Item]]
) -> None:
    """A gallery of every condition but the clean one, into the artifact and to the tracker."""
    clean, *others = conditions
    if not config.gallery_rows:
        return
    pictures = context.output / PICTURES_FOLDER
    pictures.mkdir(parents=True, exist_ok=True)
    for condition in others:
        page = fooling_gallery(condition, answered[condition.name], clean, answered[CLEAN], config.gallery_rows)
        page.save(pictures / f"{condition.name}.png")
        context.tracker.log_image(f"gallery/evaluate_{condition.name}.png", page)


def _rng(seed: int, sample: Sample) -> np.random.Generator:
    return np.random.default_rng([seed, int(item_id(sample), 16)])


def _open_clean(folder: Path, sample: Sample) -> Image:
    return load_image(folder, sample.image)


def _open_edited(folder: Path, sample: Sample) -> Image:
    return load_image(folder, str(sample.edited_image))


def _open_attacked(folder: Path, sample: Sample) -> Image:
    return load_image(folder, f"images/{item_id(sample)}.png")
