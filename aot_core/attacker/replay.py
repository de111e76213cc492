"""Replay: edits of a campaign's earlier rounds, as far as the present Defender can still learn from them.

    earlier data sets -> the newest `candidates` -> the same checks again -> p of the present Defender
                      -> the learnable ones compete for `share` of the lesson

PLR (arXiv 2010.03934) replays levels by a score that it remembers, and mixes in how long ago the score was taken, since
the student has changed meanwhile. Here p costs one forward pass an edit: all are measured again, and no score is stale.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from aot_core.attacker.curation import Funnel, ValidEdit
from aot_core.attacker.learnability import Origin, RatedEdit, Taught, best_of_scenes, choose_learnable, flat_share, rate
from aot_core.attacker.reward import SureAnswerer
from aot_core.attacker.scenes import Target
from aot_core.contracts.artifact import ArtifactRef
from aot_core.contracts.curate import CurateConfig, LearnabilitySettings, ReplayOutputs, ReplaySettings
from aot_core.contracts.protocols import Answerer
from aot_core.contracts.scene import Sample
from aot_core.data.dataset import load_image, read_samples
from aot_core.worlds.opening import world_of
from aot_core.worlds.proposals import Proposal

EDIT_MARK = "-edit-"
"""A kept edit's `sample_id` is its scene's, this, and a number."""


def remeasure(
    rounds: Sequence[tuple[ArtifactRef, Path]],
    config: CurateConfig,
    settings: ReplaySettings,
    defender: SureAnswerer,
    painter: int,
    photo_judge: Answerer | None = None,
) -> tuple[list[RatedEdit], int]:
    """The earlier edits that are valid by the present settings, rated by the present Defender, and how many were
    looked at.

    Args:
        rounds: what `curate` wrote in earlier rounds, in their order, and where it is.
        painter: the Attacker of the pool that paints these edits' mutations; their own is not at hand.

    Raises DataError where a data set or a picture cannot be read.
    """
    found: list[tuple[Origin, Target, Proposal, Image.Image]] = []
    seen: set[tuple[str, str, bytes]] = set()
    for origin, sample, folder in _newest_first(rounds):
        if len(found) == settings.candidates:
            break
        assert sample.edited_image is not None, "curated samples are edited"
        edited = load_image(folder, sample.edited_image)
        scene = clean_of(sample)
        # What an earlier round replayed already is there twice.
        identity = (scene.sample_id, sample.question.text, edited.tobytes())
        if identity in seen:
            continue
        seen.add(identity)
        proposal = Proposal(instruction=sample.instruction, edits=sample.edits)
        found.append((origin, Target(scene, load_image(folder, sample.image)), proposal, edited))
    if not found:
        return [], 0
    _, targets, proposals, editeds = (list(column) for column in zip(*found, strict=True))
    samples = [target.sample for target in targets]
    cleans = [target.image for target in targets]
    verdicts = world_of(samples[0]).check(config.validity, samples, proposals, cleans, editeds, photo_judge)
    valid: list[tuple[Origin, ValidEdit]] = [
        (origin, (target, proposal, edited, verdict))
        for (origin, target, proposal, edited), verdict in zip(found, verdicts, strict=True)
        if verdict.valid
    ]
    rated = rate(defender, [edit for _, edit in valid], config.temperature) if valid else []
    again = [replace(one, painter=painter, origin=origin) for one, (origin, _) in zip(rated, valid, strict=True)]
    return again, len(found)


def choose_with_replay(
    rated: Sequence[RatedEdit],
    earlier: Sequence[RatedEdit],
    funnel: Funnel,
    config: CurateConfig,
    settings: LearnabilitySettings,
    share: float,
) -> Taught:
    """The lesson by learnability, `share` of it at most replayed: the most learnable of the earlier edits, and of each
    scene the best. With a `maximum` they take the places of the last fresh ones, without one they come in addition."""
    fresh = choose_learnable(rated, funnel, config, settings)
    learnable = [one for one in best_of_scenes(earlier, settings) if one.learnability >= settings.least]
    wanted = round(len(fresh.kept) * share / (1 - share))
    if config.maximum is not None:
        wanted = min(wanted, round(config.maximum * share), config.maximum - 1)
    replayed = learnable[:wanted]
    if config.maximum is not None and len(fresh.kept) > (room := config.maximum - len(replayed)):
        smaller = config.model_copy(update={"maximum": room, "minimum": min(config.minimum, room)})
        fresh = choose_learnable(rated, funnel, smaller, settings)
    kept = [*fresh.kept, *replayed]
    return Taught(
        kept,
        fresh.funnel.model_copy(update={"kept": len(kept)}),
        flat_before=fresh.flat_before,
        flat_after=flat_share([one.p for one in kept], settings.group_size),
    )


def replay_outputs(
    looked_at: int, earlier: Sequence[RatedEdit], kept: Sequence[RatedEdit], least: float
) -> ReplayOutputs:
    """What came of the earlier edits; `kept` is the whole lesson, `least` the learnability's bound."""
    replayed = [one.learnability for one in kept if one.origin is not None]
    return ReplayOutputs(
        candidates=looked_at,
        valid=len(earlier),
        learnable=sum(one.learnability >= least for one in earlier),
        kept=len(replayed),
        learnability=float(np.mean(replayed)) if replayed else None,
    )


def clean_of(sample: Sample) -> Sample:
    """The scene of a curated sample, as it was before the edit."""
    nothing = {"edits": (), "edited_image": None, "edited_objects": (), "ssim": None}
    unasked = {"clean_correct": None, "edited_correct": None}
    return sample.model_copy(
        update={"sample_id": sample.sample_id.rpartition(EDIT_MARK)[0] or sample.sample_id, **nothing, **unasked}
    )


def _newest_first(rounds: Sequence[tuple[ArtifactRef, Path]]) -> Iterator[tuple[Origin, Sample, Path]]:
    for curated, folder in reversed(rounds):
        for sample in read_samples(folder):
            yield Origin(curated, sample.sample_id), sample, folder
