"""Adversarial implantation, whatever the world: what comes of it, and which edits are asked for.

How a picture is edited each world says (`shapes.implantation`, `photographs.implantation`).
"""

from dataclasses import dataclass

import numpy as np

from aot_core.contracts.prepare_data import ImplantationSettings
from aot_core.contracts.scene import DistractorFamily, Edit, EditKind
from aot_core.worlds.sources import Picture


@dataclass(frozen=True)
class Implanted:
    """An edited picture, and what was done to it."""

    picture: Picture
    edits: tuple[Edit, ...]


def random_kinds(rng: np.random.Generator, settings: ImplantationSettings) -> tuple[EditKind, ...]:
    """The kinds of a warm-start pair's edits: as many as the settings allow, by their weights."""
    least, most = settings.distractors
    kinds: tuple[EditKind, ...] = ("add", "remove", "replace")
    weights = np.array([getattr(settings.edits, kind) for kind in kinds])
    count = int(rng.integers(least, most + 1))
    return tuple(kinds[int(i)] for i in rng.choice(len(kinds), size=count, p=weights / weights.sum()))


def in_neighbourhood(rng: np.random.Generator, family: DistractorFamily, settings: ImplantationSettings) -> bool:
    """Whether this distractor is to be put beside the protected objects, by the settings' share."""
    return family != "irrelevant" and settings.near > 0 and bool(rng.random() < settings.near)
