"""`curate`: data set, new Attacker and Defender in; a data set of valid, hard edits and its funnel out."""

import numpy as np

from aot_core.attacker.curation import (
    CuratedEdit,
    Funnel,
    ValidEdit,
    ask_about,
    choose,
    draw_shares,
    join_funnels,
    make_edits,
)
from aot_core.attacker.editing import Attacker
from aot_core.attacker.scenes import AttackError, Target, load_targets
from aot_core.attacker.tactics import AttackPolicy
from aot_core.contracts.curate import CurateConfig, CurateInputs, CurateOutputs
from aot_core.contracts.scene import Sample
from aot_core.data.dataset import save_image, write_dataset
from aot_core.data.gallery import GalleryRow, gallery
from aot_core.defender.checkpoints import load_defender
from aot_core.engine.context import StageContext
from aot_core.stages.helpers.judging import load_judge
from aot_core.stages.helpers.pictures import keep_picture


def run_curate(config: CurateConfig, inputs: CurateInputs, context: StageContext) -> CurateOutputs:
    """Edit, check, ask, choose; write what is kept as a data set."""
    rng = np.random.default_rng([config.seed, 31])
    targets = load_targets(context.fetch(inputs.dataset), rng, config.scenes)
    valid, funnel = _edits(config, inputs, context, targets, rng)
    defender = load_defender(
        context.fetch(inputs.defender), context.model(inputs.defender_base), context.device, config.defender_dtype
    )
    edits = ask_about(defender, valid, config)
    kept, funnel = choose(edits, funnel, config, rng)
    write_dataset(context.output, [_sample(edit, index, context) for index, edit in enumerate(kept)])
    (context.output / "funnel.json").write_text(funnel.model_dump_json(indent=1) + "\n")
    context.tracker.log_metrics({f"curate/{name}": float(n) for name, n in funnel.model_dump().items()})
    _show(kept, config, context)
    return CurateOutputs(
        **funnel.model_dump(),
        success=float(np.mean([edit.correct == 0 for edit in edits])),
        mean_correct=float(np.mean([edit.correct for edit in kept])),
    )


def _edits(
    config: CurateConfig, inputs: CurateInputs, context: StageContext, targets: list[Target], rng: np.random.Generator
) -> tuple[list[ValidEdit], Funnel]:
    """The valid edits of all scenes: by the newest Attacker, or, scene by scene, by one drawn from the pool.

    Raises AttackError where not one edit is valid.
    """
    pool = [*inputs.pool, inputs.attacker] if config.draw != "newest" else [inputs.attacker]
    successes = inputs.successes or (0.0,) * len(pool)
    if config.draw != "newest" and len(successes) != len(pool):
        raise ValueError(f"successes: {len(successes)} for {len(pool)} Attackers; give one for each, the newest last")
    drawn = rng.choice(len(pool), size=len(targets), p=draw_shares(config.draw, successes)) if len(pool) > 1 else None
    photo_judge = load_judge(config.validity, inputs.judge, context)
    valid: list[ValidEdit] = []
    funnels: list[Funnel] = []
    failed: AttackError | None = None
    for index, reference in enumerate(pool):
        mine = (
            targets if drawn is None else [target for target, who in zip(targets, drawn, strict=True) if who == index]
        )
        if not mine:
            continue
        folder = context.fetch(reference)
        attacker = Attacker.load(context.model(inputs.attacker_base), folder, context.device, steps=config.steps)
        try:
            edits, funnel = make_edits(attacker, AttackPolicy.load(folder), mine, config, rng, photo_judge)
        except AttackError as error:
            failed = error  # one of several that has nothing valid to offer ends nothing
            continue
        valid += edits
        funnels.append(funnel)
    if not funnels:
        assert failed is not None
        raise failed
    return valid, join_funnels(funnels)


def _sample(edit: CuratedEdit, index: int, context: StageContext) -> Sample:
    """The edit as a sample of the `train` split, both images saved."""
    clean = edit.target.sample
    name = f"{index:05d}"
    return clean.model_copy(
        update={
            "sample_id": f"{clean.sample_id}-edit-{name}",
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
