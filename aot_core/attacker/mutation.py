"""Mutation: the edits that teach most, or are hardest, are edited once more (ACCEL, arXiv 2203.01302).

    rated edits -> a parent a scene -> each changed in one thing -> painted by the same Attacker -> the same checks
                -> p of the present Defender -> candidates beside their parents, and parents of the next generation

ACCEL edits the levels of its replay buffer that have the highest regret, and keeps children that score high. Here the
score is p (1 - p), exact, and the places in the lesson are given by `attacker.learnability`: a child has no privilege.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from aot_core.attacker.curation import Funnel, count, join_funnels, paint
from aot_core.attacker.learnability import RatedEdit, rate
from aot_core.attacker.reward import SureAnswerer
from aot_core.contracts.attack import Change
from aot_core.contracts.curate import CurateConfig, GenerationOutputs, MutationSettings
from aot_core.contracts.protocols import Answerer, Editor
from aot_core.worlds.opening import world_of
from aot_core.worlds.proposals import Proposal

_TRIES = 4
"""How often a child is drawn anew that was told before."""


class Evolved(NamedTuple):
    """What mutation adds."""

    children: list[RatedEdit]
    """The valid ones, in the order of their generations."""
    funnel: Funnel
    """Of the children."""
    generations: list[GenerationOutputs]
    """`kept` is 0: the choice is yet to come."""


class _Wanted(NamedTuple):
    parent: RatedEdit
    change: Change
    proposal: Proposal


def evolve(
    rated: Sequence[RatedEdit],
    config: CurateConfig,
    settings: MutationSettings,
    editor_of: Callable[[int], Editor],
    defender: SureAnswerer,
    photo_judge: Answerer | None = None,
) -> Evolved:
    """The generations of children of rated edits. Depends on `config.seed` and the edits alone.

    Args:
        editor_of: the Attacker by its place in the pool (`RatedEdit.painter`); asked once a generation for each.
    """
    rng = np.random.default_rng([config.seed, 33])
    pool = list(rated)
    told = {(one.scene, _sentences(one)) for one in rated}
    funnels: list[Funnel] = [count([])]
    generations: list[GenerationOutputs] = []
    for _ in range(settings.generations):
        parents = choose_parents(pool, settings)
        wanted = [child for parent in parents for child in _children(rng, parent, config, settings, told)]
        if not wanted:
            break
        children, funnel = _paint_children(wanted, config, editor_of, defender, int(rng.integers(2**31)), photo_judge)
        pool += children
        funnels.append(funnel)
        generations.append(
            GenerationOutputs(
                edited=funnel.edited,
                valid=funnel.valid,
                better=sum(one.learnability > _parent(one).learnability for one in children),
                kept=0,
                parents=float(np.mean([parent.learnability for parent in parents])),
                children=float(np.mean([one.learnability for one in children])) if children else None,
            )
        )
    return Evolved(pool[len(rated) :], join_funnels(funnels), generations)


def choose_parents(pool: Sequence[RatedEdit], settings: MutationSettings) -> list[RatedEdit]:
    """One parent a scene, of the first `share` of the scenes. Ties are broken by the order of `pool`."""

    def hardness(one: RatedEdit) -> float:
        return 1 - one.p if settings.parents == "hardest" else one.learnability

    best: dict[str, RatedEdit] = {}
    for one in pool:
        if one.scene not in best or hardness(one) > hardness(best[one.scene]):
            best[one.scene] = one
    ordered = sorted(best.values(), key=hardness, reverse=settings.parents != "lagging")
    return ordered[: max(1, round(settings.share * len(ordered)))]


def counted(generations: Sequence[GenerationOutputs], kept: Sequence[RatedEdit]) -> dict[str, GenerationOutputs]:
    """The generations by number, with how many of each are among the kept."""
    return {
        str(number): one.model_copy(update={"kept": sum(edit.generation == number for edit in kept)})
        for number, one in enumerate(generations, start=1)
    }


def _children(
    rng: np.random.Generator,
    parent: RatedEdit,
    config: CurateConfig,
    settings: MutationSettings,
    told: set[tuple[str, str]],
) -> list[_Wanted]:
    """Children that no edit of the scene was told before; fewer where the scene allows no more."""
    target, _, _, verdict = parent.edit
    found: list[_Wanted] = []
    for _ in range(settings.children * _TRIES):
        if len(found) == settings.children:
            break
        change = settings.changes[int(rng.integers(len(settings.changes)))]
        proposal = world_of(target.sample).mutate(
            rng,
            target.sample,
            verdict.edits,
            change,
            bounds=settings.edits,
            show_question=config.proposals.show_question,
        )
        if proposal is None:
            continue
        sentences = " ".join(edit.instruction for edit in proposal.edits)
        if (parent.scene, sentences) not in told:
            told.add((parent.scene, sentences))
            found.append(_Wanted(parent, change, proposal))
    return found


def _paint_children(
    wanted: Sequence[_Wanted],
    config: CurateConfig,
    editor_of: Callable[[int], Editor],
    defender: SureAnswerer,
    seed: int,
    photo_judge: Answerer | None,
) -> tuple[list[RatedEdit], Funnel]:
    """The valid children, rated, and the funnel of all."""
    children: list[RatedEdit] = []
    funnels: list[Funnel] = []
    for painter in sorted({one.parent.painter for one in wanted}):
        mine = [one for one in wanted if one.parent.painter == painter]
        asked = [(one.parent.edit[0], one.proposal) for one in mine]
        images, verdicts = paint(editor_of(painter), asked, config, seed + painter, photo_judge)
        funnels.append(count(verdicts))
        valid = [
            (one, (*pair, image, verdict))
            for one, pair, image, verdict in zip(mine, asked, images, verdicts, strict=True)
            if verdict.valid
        ]
        if not valid:
            continue
        rated = rate(defender, [edit for _, edit in valid], config.temperature)
        children += [
            replace(child, painter=painter, parent=one.parent, change=one.change)
            for child, (one, _) in zip(rated, valid, strict=True)
        ]
    return children, join_funnels(funnels)


def _parent(child: RatedEdit) -> RatedEdit:
    assert child.parent is not None, "children have a parent"
    return child.parent


def _sentences(one: RatedEdit) -> str:
    return " ".join(edit.instruction for edit in one.edit[1].edits)
