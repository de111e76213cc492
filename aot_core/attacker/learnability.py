"""Curation by learnability: of several edits a scene, those are kept that the Defender gets right now and then.

    valid edits -> the probability p of a right answer, exact from the letters' -> the best of every scene by p (1 - p)
                -> the most learnable scenes, few trivial and few hopeless among them

p (1 - p) is the variance of a right-or-wrong reward, and the size of the policy gradient goes with it: the scenes that
are right half of the time teach most (SFL, "No Regrets", arXiv 2408.15099, section 4). A group of G answers teaches
nothing where all of them are right or all are wrong, which happens with probability p^G + (1 - p)^G: so the share of
groups that a lesson wastes is known before anything is trained, without sampling.

Exact for a Defender that answers with the letter alone; of one that reasons first, p is its first impression.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np

from aot_core.attacker.curation import Funnel, ValidEdit
from aot_core.attacker.reward import SureAnswerer, probability
from aot_core.contracts.artifact import ArtifactRef
from aot_core.contracts.attack import Change
from aot_core.contracts.curate import CurateConfig, LearnabilitySettings


class Origin(NamedTuple):
    """An earlier round's artifact, and the sample there."""

    curated: ArtifactRef
    sample_id: str


@dataclass(frozen=True)
class RatedEdit:
    """A valid edit and the probability p of a right answer to it, and where it comes from."""

    edit: ValidEdit
    p: float
    painter: int = 0
    """Which Attacker of the pool painted it; of a replayed edit: which one paints its children."""
    parent: Self | None = None
    """The edit that was mutated; None: it was proposed by the attack policy, or replayed."""
    change: Change | None = None
    """What was changed in the parent."""
    origin: Origin | None = None
    """Of a replayed edit."""

    @property
    def generation(self) -> int:
        """0 for what is no mutation."""
        return 0 if self.parent is None else self.parent.generation + 1

    @property
    def learnability(self) -> float:
        """p (1 - p), 0..0.25."""
        return self.p * (1 - self.p)

    @property
    def scene(self) -> str:
        return self.edit[0].sample.sample_id


@dataclass(frozen=True)
class Taught:
    """What a lesson by learnability is made of."""

    kept: list[RatedEdit]
    funnel: Funnel
    flat_before: float
    """Expected share of groups that teach nothing, were every valid edit a prompt."""
    flat_after: float
    """The same of the edits kept."""


def rate(defender: SureAnswerer, edits: Sequence[ValidEdit], temperature: float) -> list[RatedEdit]:
    """Every edit's p at a sampling temperature: one forward pass an edit, nothing is generated."""
    questions = [target.sample.question for target, *_ in edits]
    by_letter = defender.letter_logprobs([image for *_, image, _ in edits], questions)
    return [
        RatedEdit(edit, probability(letters, question.answer, temperature))
        for edit, letters, question in zip(edits, by_letter, questions, strict=True)
    ]


def flat_share(probabilities: Sequence[float], group_size: int) -> float:
    """Mean of p^G + (1 - p)^G: the expected share of groups of G answers that are all right or all wrong."""
    p = np.asarray(probabilities, dtype=np.float64)
    return float(np.mean(p**group_size + (1 - p) ** group_size))


def choose_learnable(
    rated: Sequence[RatedEdit], funnel: Funnel, config: CurateConfig, settings: LearnabilitySettings
) -> Taught:
    """Of each scene the best `per_scene` edits, and of these the most learnable, `maximum` at most.

    Trivial and hopeless edits (p (1 - p) below `least`) fill at most their shares of the result; with fewer than
    `minimum` edits the next most learnable ones fill up regardless. Ties are broken by the order of `rated`.
    """
    candidates = best_of_scenes(rated, settings)
    hard = [one for one in candidates if one.learnability >= settings.least]
    trivial = [one for one in candidates if one.learnability < settings.least and one.p >= 0.5]
    hopeless = [one for one in candidates if one.learnability < settings.least and one.p < 0.5]
    # With h hard edits and shares a, b of the result: h / (1 - a - b) in all, bounded by `maximum`.
    whole = len(hard) / (1 - settings.trivial_share - settings.hopeless_share)
    whole = min(whole, config.maximum) if config.maximum is not None else whole
    some = [*trivial[: round(whole * settings.trivial_share)], *hopeless[: round(whole * settings.hopeless_share)]]
    room = None if config.maximum is None else max(0, config.maximum - len(some))
    kept = [*hard[:room], *some]
    if len(kept) < config.minimum:
        taken = set(map(id, kept))
        kept += [one for one in candidates if id(one) not in taken][: config.minimum - len(kept)]
    easy = [one.p for one in rated if one.learnability < settings.least]
    counts = {
        "hopeless": sum(p < 0.5 for p in easy),
        "trivial": sum(p >= 0.5 for p in easy),
        "hard": len(rated) - len(easy),
        "kept": len(kept),
    }
    return Taught(
        kept,
        funnel.model_copy(update=counts),
        flat_before=flat_share([one.p for one in rated], settings.group_size),
        flat_after=flat_share([one.p for one in kept], settings.group_size),
    )


def best_of_scenes(rated: Sequence[RatedEdit], settings: LearnabilitySettings) -> list[RatedEdit]:
    """The `per_scene` best edits of every scene, the most learnable of all first."""
    by_scene: dict[str, list[RatedEdit]] = {}
    for one in rated:
        by_scene.setdefault(one.scene, []).append(one)
    worst = settings.choose == "worst"
    best = [
        one
        for edits in by_scene.values()
        for one in sorted(edits, key=lambda edit: edit.p if worst else -edit.learnability)[: settings.per_scene]
    ]
    return sorted(best, key=lambda one: -one.learnability)
