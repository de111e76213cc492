"""`curate`: data set, new Attacker and Defender in; a data set of valid, hard edits and its funnel out."""

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from aot_core.attacker.curation import (
    CuratedEdit,
    Funnel,
    NoValidEditError,
    ValidEdit,
    ask_about,
    choose,
    draw_shares,
    join_funnels,
    make_edits,
)
from aot_core.attacker.editing import Attacker
from aot_core.attacker.learnability import RatedEdit, choose_learnable, rate
from aot_core.attacker.mutation import counted, evolve
from aot_core.attacker.replay import EDIT_MARK, choose_with_replay, remeasure, replay_outputs
from aot_core.attacker.scenes import AttackError, Target, load_targets
from aot_core.attacker.tactics import AttackPolicy
from aot_core.contracts.artifact import ArtifactRef
from aot_core.contracts.curate import CurateConfig, CurateInputs, CurateOutputs, GenerationOutputs
from aot_core.contracts.scene import Sample
from aot_core.data.dataset import save_image, write_dataset
from aot_core.data.gallery import GalleryRow, gallery
from aot_core.defender.answering import Defender
from aot_core.defender.checkpoints import load_defender
from aot_core.engine.context import StageContext
from aot_core.stages.helpers.judging import load_judge
from aot_core.stages.helpers.lineage import write_lineage
from aot_core.stages.helpers.pictures import keep_picture


def run_curate(config: CurateConfig, inputs: CurateInputs, context: StageContext) -> CurateOutputs:
    """Edit, check, ask, choose; write what is kept as a data set."""
    rng = np.random.default_rng([config.seed, 31])
    targets = load_targets(context.fetch(inputs.dataset), rng, config.scenes)
    pool = [*inputs.pool, inputs.attacker] if config.draw != "newest" else [inputs.attacker]
    successes = _successes(config, inputs, context, targets, pool)
    valid, painters, funnel = _edits(config, inputs, context, targets, pool, successes, rng)
    defender = _defender(config, inputs, context)
    if config.learnability is None:
        edits = ask_about(defender, valid, config)
        fooled = float(np.mean([edit.correct == 0 for edit in edits]))
        lesson = _Lesson(*choose(edits, funnel, config, rng), fooled, {}, ())
    else:
        lesson = _learnable(config, inputs, context, defender, pool, (valid, painters, funnel))
    kept, funnel = lesson.kept, lesson.funnel
    samples = [_sample(edit, index, context) for index, edit in enumerate(kept)]
    write_dataset(context.output, samples)
    if config.mutation is not None or config.replay is not None:
        write_lineage(context.output, lesson.rated, [sample.sample_id for sample in samples], pool)
    (context.output / "funnel.json").write_text(funnel.model_dump_json(indent=1) + "\n")
    context.tracker.log_metrics({f"curate/{name}": float(n) for name, n in funnel.model_dump().items()})
    _show(kept, config, context)
    return CurateOutputs(
        **funnel.model_dump(),
        success=lesson.success,
        mean_correct=float(np.mean([edit.correct for edit in kept])),
        successes={str(n): x for n, x in enumerate(successes, start=1)} if config.priority is not None else {},
        **lesson.figures,
    )


class _Lesson(NamedTuple):
    """What was chosen, and the figures of the choice (`CurateOutputs`)."""

    kept: list[CuratedEdit]
    funnel: Funnel
    success: float
    figures: dict[str, Any]
    rated: Sequence[RatedEdit]
    """With learnability: the kept, in the same order."""


def _learnable(
    config: CurateConfig,
    inputs: CurateInputs,
    context: StageContext,
    defender: Defender,
    pool: list[ArtifactRef],
    made: tuple[list[ValidEdit], list[int], Funnel],
) -> _Lesson:
    """The lesson by learnability: fresh edits, those of earlier rounds, and mutations of both."""
    assert config.learnability is not None
    valid, painters, funnel = made
    rated = [
        replace(one, painter=painter)
        for one, painter in zip(rate(defender, valid, config.temperature), painters, strict=True)
    ]
    traced = config.mutation is not None or config.replay is not None
    judge = load_judge(config.validity, inputs.judge, context) if traced else None
    earlier: list[RatedEdit] = []
    looked_at = 0
    if config.replay is not None:
        rounds = [(curated, context.fetch(curated)) for curated in inputs.earlier]
        earlier, looked_at = remeasure(rounds, config, config.replay, defender, len(pool) - 1, judge)
    generations: list[GenerationOutputs] = []
    if config.mutation is not None:

        @lru_cache(maxsize=1)  # the same one again and again is loaded once; two big ones may not fit
        def editor_of(painter: int) -> Attacker:
            return _attacker(config, inputs, context, pool[painter])[0]

        evolved = evolve([*rated, *earlier], config, config.mutation, editor_of, defender, judge)
        rated += evolved.children
        funnel, generations = join_funnels([funnel, evolved.funnel]), evolved.generations
    if config.replay is not None:
        taught = choose_with_replay(rated, earlier, funnel, config, config.learnability, config.replay.share)
    else:
        taught = choose_learnable(rated, funnel, config, config.learnability)
    # Only what is kept is answered in full: p needs one pass an edit, `samples` answers need many.
    kept = ask_about(defender, [one.edit for one in taught.kept], config)
    fooled = float(np.mean([(1 - one.p) ** config.samples for one in rated]))
    figures: dict[str, Any] = {"flat_before": taught.flat_before, "flat_after": taught.flat_after}
    if traced:
        figures["learnability"] = float(np.mean([one.learnability for one in taught.kept]))
    if config.mutation is not None:
        figures["mutation"] = counted(generations, taught.kept)
    if config.replay is not None:
        figures["replay"] = replay_outputs(looked_at, earlier, taught.kept, config.learnability.least)
    return _Lesson(kept, taught.funnel, fooled, figures, taught.kept)


def _attacker(
    config: CurateConfig, inputs: CurateInputs, context: StageContext, reference: ArtifactRef
) -> tuple[Attacker, AttackPolicy]:
    folder = context.fetch(reference)
    attacker = Attacker.load(context.model(inputs.attacker_base), folder, context.device, steps=config.steps)
    return attacker, AttackPolicy.load(folder)


def _defender(config: CurateConfig, inputs: CurateInputs, context: StageContext) -> Defender:
    return load_defender(
        context.fetch(inputs.defender),
        context.model(inputs.defender_base),
        context.device,
        config.defender_dtype,
        max_new_tokens=config.max_new_tokens,
    )


def _successes(
    config: CurateConfig, inputs: CurateInputs, context: StageContext, targets: list[Target], pool: list[ArtifactRef]
) -> tuple[float, ...]:
    """Of every Attacker of the pool: what its own round ended with, or, with `priority`, what it does to the Defender
    that will be trained, on the same scenes with the same random numbers."""
    if config.priority is None:
        return inputs.successes or (0.0,) * len(pool)
    defender = _defender(config, inputs, context)
    photo_judge = load_judge(config.validity, inputs.judge, context)
    once = config.model_copy(update={"edits_per_scene": 1})
    found: list[float] = []
    for reference in pool:
        attacker, policy = _attacker(config, inputs, context, reference)
        rng = np.random.default_rng([config.seed, 32])
        scenes = targets[: config.priority.scenes]
        try:
            valid, funnel = make_edits(attacker, policy, scenes, once, rng, photo_judge)
        except AttackError:
            found.append(0.0)  # nothing valid: it succeeds at nothing
            continue
        wrong = sum(1 - one.p for one in rate(defender, valid, config.temperature))
        found.append(wrong / funnel.edited)
    return tuple(found)


def _edits(
    config: CurateConfig,
    inputs: CurateInputs,
    context: StageContext,
    targets: list[Target],
    pool: list[ArtifactRef],
    successes: Sequence[float],
    rng: np.random.Generator,
) -> tuple[list[ValidEdit], list[int], Funnel]:
    """The valid edits of all scenes, and whose of the pool each is: by the newest Attacker, or, scene by scene, by one
    drawn from the pool.

    Raises AttackError where not one edit is valid.
    """
    if config.draw != "newest" and len(successes) != len(pool):
        raise ValueError(f"successes: {len(successes)} for {len(pool)} Attackers; give one for each, the newest last")
    form = config.priority.form if config.priority is not None else "success"
    shares = draw_shares(config.draw, successes, form)
    drawn = rng.choice(len(pool), size=len(targets), p=shares) if len(pool) > 1 else None
    photo_judge = load_judge(config.validity, inputs.judge, context)
    valid: list[ValidEdit] = []
    painters: list[int] = []
    funnels: list[Funnel] = []
    failed: AttackError | None = None
    for index, reference in enumerate(pool):
        mine = (
            targets if drawn is None else [target for target, who in zip(targets, drawn, strict=True) if who == index]
        )
        if not mine:
            continue
        attacker, policy = _attacker(config, inputs, context, reference)
        try:
            edits, funnel = make_edits(attacker, policy, mine, config, rng, photo_judge)
        except AttackError as error:
            failed = error  # one of several without a valid edit does not end the stage
            if not isinstance(error, NoValidEditError):
                continue
            edits, funnel = [], error.funnel
        valid += edits
        painters += [index] * len(edits)
        funnels.append(funnel)
    if not valid:
        assert failed is not None
        raise failed
    return valid, painters, join_funnels(funnels)


def _sample(edit: CuratedEdit, index: int, context: StageContext) -> Sample:
    """The edit as a sample of the `train` split, both images saved."""
    clean = edit.target.sample
    name = f"{index:05d}"
    return clean.model_copy(
        update={
            "sample_id": f"{clean.sample_id}{EDIT_MARK}{name}",
            "image": save_image(context.output, f"{name}-clean", edit.target.image),
            "edited_image": save_image(context.output, f"{name}-edited", edit.edited),
            "edits": edit.verdict.edits,
            "edited_objects": edit.verdict.objects,
            "ssim": edit.verdict.ssim,
            "clean_correct": edit.clean_correct,
            "edited_correct": edit.correct,
        }
    )


def _show(kept: list[CuratedEdit], config: CurateConfig, context: StageContext) -> None:
    """Draw some of the hardest edits kept."""
    hardest = sorted(kept, key=lambda edit: (edit.correct, -edit.clean_correct))[: config.gallery_rows]
    if not hardest:
        return
    rows = [
        GalleryRow(
            clean=edit.target.image,
            edited=edit.edited,
            question=edit.target.sample.question,
            clean_answers=edit.clean_answers,
            edited_answers=edit.answers,
            caption=f"{edit.proposal.instruction} SSIM {edit.verdict.ssim:.3f}",
        )
        for edit in hardest
    ]
    page = gallery(rows, "The hardest edits kept for the Defender")
    keep_picture(context, "curated", page)
