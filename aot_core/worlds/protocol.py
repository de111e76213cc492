"""The two kinds of world that data is made from, behind one protocol: procedural scenes and photographs.

source picture --extend--> scene --ask--> question --implant--> edited scene
"""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import numpy as np

from aot_core.contracts.prepare_data import PrepareDataConfig
from aot_core.contracts.scene import DistractorFamily, EditKind, Question, QuestionKind
from aot_core.worlds.extension import Extended, extend_photo, extend_world
from aot_core.worlds.images import DataError, RowError
from aot_core.worlds.photographs.coco import CocoSource
from aot_core.worlds.photographs.collage import add_things
from aot_core.worlds.photographs.datasets import DatasetsSource
from aot_core.worlds.photographs.implantation import Cutout, cutouts, implant_photo
from aot_core.worlds.photographs.outpainting import Outpainter
from aot_core.worlds.photographs.questions import ask_photo
from aot_core.worlds.questions import ask_world
from aot_core.worlds.shapes.implantation import Implanted, Rejection, implant_world
from aot_core.worlds.sources import Picture, ProceduralSource, Source

DONORS = 64
"""From so many photographs of a split distractors are cut."""


class Domain(Protocol):
    """How scenes of one kind are opened, extended, asked about and edited."""

    def picture(self, index: int) -> Picture:
        """A source picture."""
        ...

    def extend(self, rng: np.random.Generator, source: Picture) -> Extended:
        """The picture on a larger canvas, not yet checked."""
        ...

    def ask(self, rng: np.random.Generator, kind: QuestionKind, picture: Picture) -> Question | None:
        """A question of a kind, None where the picture allows none."""
        ...

    def implant(
        self,
        rng: np.random.Generator,
        picture: Picture,
        question: Question,
        family: DistractorFamily,
        kinds: tuple[EditKind, ...],
    ) -> Implanted | Rejection:
        """Carry out edits of the given kinds with distractors of a family."""
        ...


class ProceduralDomain:
    """Scenes that the project draws."""

    def __init__(self, source: Source, config: PrepareDataConfig) -> None:
        self._source, self._config = source, config

    def picture(self, index: int) -> Picture:
        return self._source.picture(index)

    def extend(self, rng: np.random.Generator, source: Picture) -> Extended:
        return extend_world(rng, source, self._config.extension)

    def ask(self, rng: np.random.Generator, kind: QuestionKind, picture: Picture) -> Question | None:
        return ask_world(rng, kind, picture.scene.objects)

    def implant(
        self,
        rng: np.random.Generator,
        picture: Picture,
        question: Question,
        family: DistractorFamily,
        kinds: tuple[EditKind, ...],
    ) -> Implanted | Rejection:
        return implant_world(rng, picture, question, family, kinds, self._config.implantation)


class PhotoDomain:
    """Photographs of one split. Distractors are cut from the same split's, so that splits share no pixel."""

    def __init__(
        self, source: Source, config: PrepareDataConfig, indices: Sequence[int], outpainter: Outpainter | None
    ) -> None:
        self._source, self._config, self._outpainter = source, config, outpainter
        # A small source is gone over many times: its photographs stay decoded.
        self.picture = lru_cache(maxsize=16)(source.picture)
        self._donors: list[Cutout] = []
        if len(indices) > 1:
            for index in indices[:DONORS]:
                try:
                    self._donors.extend(cutouts(self.picture(index)))
                except RowError:
                    continue  # Counted, with its reason, where its own turn comes.

    def extend(self, rng: np.random.Generator, source: Picture) -> Extended:
        extended = extend_photo(rng, source, self._config.extension, self._outpainter)
        return add_things(rng, extended, self._donors, self._config.extension)

    def ask(self, rng: np.random.Generator, kind: QuestionKind, picture: Picture) -> Question | None:
        return ask_photo(rng, kind, picture, self._source.names)

    def implant(
        self,
        rng: np.random.Generator,
        picture: Picture,
        question: Question,
        family: DistractorFamily,
        kinds: tuple[EditKind, ...],
    ) -> Implanted | Rejection:
        settings = self._config.implantation
        return implant_photo(rng, picture, question, family, kinds, self._donors, self._source.kinds, settings)


def open_source(config: PrepareDataConfig, folder: Path | None, work: Path) -> Source:
    """The config's source. Photographs are indexed in the folder `work`, once for all that ask.

    Raises DataError where a source of photographs has no folder or a bad one.
    """
    if config.source.type == "procedural":
        return ProceduralSource(config.source, config.seed)
    if folder is None:
        raise DataError(
            f"source_folder: a {config.source.type} source needs a folder; name the one that holds your photographs"
        )
    if config.source.type == "coco":
        return CocoSource(folder, config.source, work, config.limits.max_image_pixels)
    return DatasetsSource(folder, config.source, work, config.limits.max_image_pixels)


def open_domain(
    source: Source, config: PrepareDataConfig, indices: Sequence[int], outpainter: Outpainter | None = None
) -> Domain:
    """The domain of one split, whose source pictures have these numbers (endless sources: any)."""
    if isinstance(source, ProceduralSource):
        return ProceduralDomain(source, config)
    return PhotoDomain(source, config, indices, outpainter)
