"""The scenes that an Attacker meets: samples with their images, and instructions proposed for them."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from aot_core.answers import letter_of
from aot_core.attacker.tactics import AttackPolicy, Choice, Tactician
from aot_core.contracts.attack import ProposalSettings
from aot_core.contracts.protocols import Answerer
from aot_core.contracts.scene import Sample
from aot_core.data.dataset import load_image, read_samples
from aot_core.worlds.opening import world_of
from aot_core.worlds.proposals import Proposal, ProposalError

_NO_ROOM = "scenes have no free cells for the edits; lower proposals.edits or prepare_data's objects"


class AttackError(ValueError):
    """There is nothing to attack, or no usable attack. The message says what to change."""


class Target(NamedTuple):
    """A sample and its clean image."""

    sample: Sample
    image: Image.Image


class Attempt(NamedTuple):
    """A scene, what the editor is told to do to it, and the decisions that led there."""

    target: Target
    proposal: Proposal
    decisions: tuple[Choice, ...] = ()


def load_targets(folder: Path, rng: np.random.Generator, count: int) -> list[Target]:
    """`count` clean samples of the `train` split (all where there are fewer), chosen and ordered by `rng`.

    Raises AttackError where the split is empty.
    """
    samples = [sample for sample in read_samples(folder, "train") if not sample.edits]
    if not samples:
        raise AttackError("dataset has no clean samples in its train split; raise prepare_data.splits.train")
    chosen = rng.permutation(len(samples))[:count]
    return [Target(samples[int(i)], load_image(folder, samples[int(i)].image)) for i in chosen]


def answered_right(
    answerer: Answerer, targets: Sequence[Target], samples: int, temperature: float, seed: int
) -> list[float]:
    """The share of right answers to every clean scene."""
    completions = answerer.answer(
        [target.image for target in targets],
        [target.sample.question for target in targets],
        samples=samples,
        temperature=temperature,
        seed=seed,
    )
    shares = []
    for target, texts in zip(targets, completions, strict=True):
        question = target.sample.question
        shares.append(sum(letter_of(text, question.options) == question.answer for text in texts) / len(texts))
    return shares


def propose_for(
    rng: np.random.Generator, target: Target, settings: ProposalSettings, policy: AttackPolicy
) -> Attempt | None:
    """A proposal of a random number of edits, decided by the policy; None where the scene has no room for them."""
    least, most = settings.edits
    tactician = Tactician(policy, target.sample.question, rng)
    try:
        proposal = world_of(target.sample).propose(
            rng,
            target.sample,
            tactician,
            edits=int(rng.integers(least, most + 1)),
            kinds=settings.kinds,
            named_share=settings.named_share,
            show_question=settings.show_question,
        )
    except ProposalError:
        return None
    return Attempt(target, proposal, tuple(tactician.decisions))


def draw(
    rng: np.random.Generator,
    targets: Sequence[Target],
    settings: ProposalSettings,
    policy: AttackPolicy,
    count: int,
    variants: int = 1,
) -> list[Attempt]:
    """`count` targets drawn at random, with `variants` proposals each, one after the other.

    Raises AttackError where hardly any scene has room.
    """
    drawn: list[Attempt] = []
    for _ in range(50 * count):
        target = targets[int(rng.integers(len(targets)))]
        attempts = [propose_for(rng, target, settings, policy) for _ in range(variants)]
        drawn += [attempt for attempt in attempts if attempt is not None] if None not in attempts else []
        if len(drawn) == count * variants:
            return drawn
    raise AttackError(_NO_ROOM)


def draw_each(
    rng: np.random.Generator, targets: Sequence[Target], settings: ProposalSettings, policy: AttackPolicy
) -> list[Attempt]:
    """One attempt for every target, in random order. Only where a scene has no room is another one met again.

    Raises AttackError where hardly any scene has room.
    """
    drawn: list[Attempt] = []
    for _ in range(50):
        for index in rng.permutation(len(targets)):
            attempt = propose_for(rng, targets[int(index)], settings, policy)
            if attempt is not None:
                drawn.append(attempt)
            if len(drawn) == len(targets):
                return drawn
    raise AttackError(_NO_ROOM)
