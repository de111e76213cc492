"""prepare_data: a source, and the models that its checks and filter ask, to the campaign's data set, guarded.

The artifact is a data set (`aot_core.data.dataset`) with its card, `guard/` (what was checked) and `pictures/`. Its
shards are made by `context.threads` processes in `context.progress`, where a killed run's finished ones are found
again.
"""

import logging
from dataclasses import replace
from functools import partial
from pathlib import Path

from aot_core.contracts.prepare_data import PrepareDataConfig, PrepareDataInputs, PrepareDataOutputs
from aot_core.contracts.protocols import Answerer
from aot_core.contracts.summary import PICTURES_FOLDER
from aot_core.data.build import BuildJob, BuildSummary, build_dataset, notes_of
from aot_core.data.card import DataCard, describe, write_card
from aot_core.data.dataset import MANIFEST, file_sha256
from aot_core.data.growing import BuildPlan
from aot_core.data.guard import guard_dataset
from aot_core.data.pipeline import Helpers
from aot_core.data.sheet import contact_sheet
from aot_core.engine.context import StageContext
from aot_core.worlds.opening import world_from

GALLERY = f"{PICTURES_FOLDER}/pairs.png"
_GALLERY_ROWS = 16
logger = logging.getLogger(__name__)


def run_prepare_data(config: PrepareDataConfig, inputs: PrepareDataInputs, context: StageContext) -> PrepareDataOutputs:
    """Make, write and check the data set.

    Raises DataError (bad source, too few samples), DataGuardError (data that breaks an expectation) and
    ValueError (an input that the config needs is missing).
    """
    return prepare(config, inputs, context, context.fetch(inputs.previous) if inputs.previous else None)


def prepare(
    config: PrepareDataConfig, inputs: PrepareDataInputs, context: StageContext, previous: Path | None
) -> PrepareDataOutputs:
    """`run_prepare_data`, with the previous data set in a folder of whatever origin."""
    if previous is not None and not config.growing:
        raise ValueError("previous: only a growing data set reuses shards; set growing = true, or leave it out")
    job = replace(build_job(config, inputs, context), previous=previous)
    made = build_dataset(job, context.output, context.threads)
    docs = context.scratch / "data_docs"
    try:
        guard_dataset(
            context.output,
            config.implantation.min_ssim,
            context.output / "guard",
            config.guard,
            photographs=world_from(config.source.type).photographs,
            docs=docs,
            workers=context.threads,
            notes=notes_of(job, made),
        )
    finally:
        # Also, and above all, of data that is not let through.
        for path, folder in ((context.output / "guard", "data_guard"), (docs, "data_docs")):
            if path.is_dir():
                context.tracker.log_artifact(path, folder)
        context.tracker.set_tag("aot.data_docs", "data_docs/index.html")
    growth = _growth(made.plan) if config.growing else {}
    if growth:
        logger.info("prepare_data: %s", ", ".join(f"{name} {count}" for name, count in growth.items()))
    card = replace(describe(context.output, file_sha256(context.output / MANIFEST), dict(made.funnel)), growth=growth)
    pictures = []
    if card.pairs:
        pictures = [GALLERY]
        (context.output / GALLERY).parent.mkdir(exist_ok=True)
        (context.output / GALLERY).write_bytes(contact_sheet(context.output, _GALLERY_ROWS))
    write_card(context.output, card, pictures)
    outputs = _outputs(card, made)
    context.tracker.log_metrics({f"data/{name}": count for name, count in outputs.funnel.items()})
    return outputs


def build_job(config: PrepareDataConfig, inputs: PrepareDataInputs, context: StageContext) -> BuildJob:
    """What makes the data set, in a form that workers on other machines can be sent. Raises ValueError for an input
    that the config needs and that is missing."""
    wanted = {
        "effectiveness.enabled": (_filters(config), inputs.defender, "a base Defender"),
        "extension.editor": (bool(config.extension.editor), inputs.editor, "a diffusers pipeline"),
        "extension.checker": (bool(config.extension.checker), inputs.checker, "an image-text-to-text model"),
    }
    for field, (needed, given, what) in wanted.items():
        if needed and given is None:
            raise ValueError(f"{field} asks for {what} and none was given; name one, or switch it off")
    names = {
        role: context.model(ref) if ref and needed else None
        for role, (needed, ref, _) in zip(("defender", "editor", "checker"), wanted.values(), strict=True)
    }
    given = (inputs.source, *(ref for needed, ref, _ in wanted.values() if needed))
    return BuildJob(
        config=config,
        folder=Path(inputs.source.name) if inputs.source else None,
        work=context.progress or context.scratch / "work",
        contents=tuple(ref.sha256 or ref.name for ref in given if ref is not None),
        models=tuple(ref.sha256 or ref.name for ref in given[1:] if ref is not None),
        open_helpers=partial(open_helpers, config, context.device, **names),
    )


def open_helpers(
    config: PrepareDataConfig, device: str, defender: str | None, editor: str | None, checker: str | None
) -> Helpers:
    """Load the models that a pipeline asks; called once in each worker."""
    from aot_core.worlds.checker import MllmChecker
    from aot_core.worlds.photographs.outpainting import DiffusersOutpainter

    return Helpers(
        answerer=_answerer(config, device, defender) if defender else None,
        outpainter=DiffusersOutpainter.load(editor, config.extension, device) if editor else None,
        checker=MllmChecker(_answerer(config, device, checker)) if checker else None,
    )


def _answerer(config: PrepareDataConfig, device: str, name: str) -> Answerer:
    from aot_core.defender.answering import Defender

    settings = config.effectiveness
    return Defender.load(name, device=device, dtype=settings.dtype, max_new_tokens=settings.max_new_tokens)


def _filters(config: PrepareDataConfig) -> bool:
    return config.effectiveness.enabled and config.splits.warm_start > 0


def _outputs(card: DataCard, made: BuildSummary) -> PrepareDataOutputs:
    judged = sum(count for name, count in card.funnel.items() if name.startswith("effectiveness/"))
    return PrepareDataOutputs(
        samples={split: float(count) for split, count in card.splits.items()},
        pairs=card.pairs,
        sources=card.sources,
        unusable=len(made.unusable),
        funnel={name: float(count) for name, count in card.funnel.items()},
        mean_ssim=card.mean_ssim,
        least_ssim=card.least_ssim,
        effective_share=card.funnel.get("effectiveness/effective", 0) / judged if judged else 0.0,
        manifest_sha256=card.manifest_sha256,
        shards_made=len(made.plan.shards) - len(made.plan.kept),
        shards_reused=len(made.plan.kept),
        pictures_new=made.plan.new,
        pictures_gone=made.plan.gone,
    )


def _growth(plan: BuildPlan) -> dict[str, int]:
    """What a growing data set shares with the previous one. By the plan, so that a resumed run reports the same."""
    return {
        "shards made": len(plan.shards) - len(plan.kept),
        "shards reused": len(plan.kept),
        "photographs": len(plan.pictures),
        "photographs new": plan.new,
        "photographs gone": plan.gone,
    }
