"""Photographs behind the protocol of `worlds.protocol`: things known by their annotated name and box."""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

from aot_core.contracts.attack import Change, ValiditySettings
from aot_core.contracts.prepare_data import PrepareDataConfig
from aot_core.contracts.protocols import Answerer
from aot_core.contracts.scene import (
    Box,
    DistractorFamily,
    Edit,
    EditKind,
    Query,
    Question,
    QuestionKind,
    Sample,
    SceneObject,
)
from aot_core.worlds.extension import Extended, Rejection
from aot_core.worlds.images import DataError, RowError
from aot_core.worlds.implantation import Implanted
from aot_core.worlds.photographs.check import PhotoChecker
from aot_core.worlds.photographs.coco import CocoSource
from aot_core.worlds.photographs.collage import add_things
from aot_core.worlds.photographs.datasets import DatasetsSource
from aot_core.worlds.photographs.extension import CHECKS, extend_photo
from aot_core.worlds.photographs.implantation import Cutout, cutouts, implant_photo
from aot_core.worlds.photographs.mutation import mutate_in_photograph
from aot_core.worlds.photographs.proposals import propose_in_photograph
from aot_core.worlds.photographs.questions import ask_photo
from aot_core.worlds.proposals import Chooser, Proposal
from aot_core.worlds.protocol import DONORS, Domain, Outpainter, ProbeError, Reading
from aot_core.worlds.sources import Picture, Source
from aot_core.worlds.validity import Verdict


class PhotographsDomain:
    """Photographs of one split. Distractors are cut from the same split's, so that splits share no pixel."""

    repeats = True
    checks = CHECKS

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


class Photographs:
    """`World`: annotated photographs of any size."""

    photographs = True

    def open_source(self, config: PrepareDataConfig, folder: Path | None, work: Path) -> Source:
        assert config.source.type != "procedural"
        if folder is None:
            raise DataError(
                f"source_folder: a {config.source.type} source needs a folder; name the one that holds your photographs"
            )
        if config.source.type == "coco":
            return CocoSource(folder, config.source, work, config.limits.max_image_pixels)
        return DatasetsSource(folder, config.source, work, config.limits.max_image_pixels)

    def open_domain(
        self, source: Source, config: PrepareDataConfig, indices: Sequence[int], outpainter: Outpainter | None = None
    ) -> Domain:
        return PhotographsDomain(source, config, indices, outpainter)

    def read(self, image: Image.Image, question: str, answer: str, boxes: tuple[Box, ...]) -> Reading | None:
        """Any picture: what the question is about stands in the boxes."""
        del image, question, answer
        if not boxes:
            raise ProbeError(
                "boxes: none given; give --boxes X,Y,WIDTH,HEIGHT (pixels) of what the question is about, which no "
                "edit may touch"
            )
        objects = tuple(SceneObject(box=box, attributes={"name": "object"}) for box in boxes)
        return Reading(Query(kind="existence", target={}), objects, boxes)

    def propose(
        self,
        rng: np.random.Generator,
        sample: Sample,
        chooser: Chooser,
        *,
        edits: int,
        kinds: Sequence[EditKind] = ("add",),
        named_share: float = 0.0,
        show_question: bool = True,
    ) -> Proposal:
        return propose_in_photograph(
            rng, sample, chooser, edits=edits, kinds=kinds, named_share=named_share, show_question=show_question
        )

    def mutate(
        self,
        rng: np.random.Generator,
        sample: Sample,
        edits: Sequence[Edit],
        change: Change,
        *,
        bounds: tuple[int, int] = (1, 4),
        show_question: bool = True,
    ) -> Proposal | None:
        return mutate_in_photograph(rng, sample, edits, change, bounds=bounds, show_question=show_question)

    def check(
        self,
        settings: ValiditySettings,
        samples: Sequence[Sample],
        proposals: Sequence[Proposal],
        cleans: Sequence[Image.Image],
        editeds: Sequence[Image.Image],
        judge: Answerer | None = None,
    ) -> list[Verdict]:
        return PhotoChecker(settings, judge).check(samples, proposals, cleans, editeds)
