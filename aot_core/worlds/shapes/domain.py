"""The drawn world behind the protocol of `worlds.protocol`: coloured shapes, every box and every truth exact."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from aot_core.contracts.attack import Change, ValiditySettings
from aot_core.contracts.prepare_data import PrepareDataConfig
from aot_core.contracts.protocols import Answerer
from aot_core.contracts.scene import Box, DistractorFamily, Edit, EditKind, Question, QuestionKind, Sample
from aot_core.worlds.extension import Extended, Rejection
from aot_core.worlds.implantation import Implanted
from aot_core.worlds.proposals import Chooser, Proposal
from aot_core.worlds.protocol import Domain, Outpainter, ProbeError, Reading
from aot_core.worlds.questions import objects_in_question
from aot_core.worlds.shapes import world
from aot_core.worlds.shapes.check import WorldChecker
from aot_core.worlds.shapes.extension import CHECKS, extend_world
from aot_core.worlds.shapes.implantation import implant_world
from aot_core.worlds.shapes.mutation import mutate
from aot_core.worlds.shapes.parser import parse_world
from aot_core.worlds.shapes.proposals import propose
from aot_core.worlds.shapes.question_reading import read_question
from aot_core.worlds.shapes.questions import ask_world
from aot_core.worlds.shapes.source import DrawnPicture, ProceduralSource
from aot_core.worlds.sources import Picture, Source
from aot_core.worlds.truth import truth
from aot_core.worlds.validity import Verdict


class ShapesDomain:
    """One split of the drawn scenes; they are without end, so every split is alike."""

    repeats = False
    checks = CHECKS

    def __init__(self, source: Source, config: PrepareDataConfig) -> None:
        self._source, self._config = source, config

    def picture(self, index: int) -> Picture:
        return self._source.picture(index)

    def extend(self, rng: np.random.Generator, source: Picture) -> Extended:
        assert isinstance(source, DrawnPicture)
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
        assert isinstance(picture, DrawnPicture)
        return implant_world(rng, picture, question, family, kinds, self._config.implantation)


class Shapes:
    """`World`: scenes that the project draws, and a parser reads."""

    photographs = False

    def open_source(self, config: PrepareDataConfig, folder: Path | None, work: Path) -> Source:
        del folder, work
        assert config.source.type == "procedural"
        return ProceduralSource(config.source, config.seed)

    def open_domain(
        self, source: Source, config: PrepareDataConfig, indices: Sequence[int], outpainter: Outpainter | None = None
    ) -> Domain:
        del indices, outpainter
        return ShapesDomain(source, config)

    def read(self, image: Image.Image, question: str, answer: str, boxes: tuple[Box, ...]) -> Reading | None:
        """A picture of the drawn world's size with a question in its words: the parser reads its objects."""
        query = read_question(question) if image.size == (world.SIZE, world.SIZE) else None
        if query is None:
            return None
        objects = tuple(found.object for found in parse_world(image))
        found = truth(query, objects)
        seen = ", ".join(thing.name for thing in objects) or "nothing"
        if found is None:
            raise ProbeError(f"question: the picture does not decide it (it shows {seen}); ask about what is there")
        if found != answer:
            raise ProbeError(f"answer: {answer!r} is not what the picture shows ({seen}): that would be {found!r}")
        return Reading(query, objects, boxes or tuple(thing.box for thing in objects_in_question(query, objects)))

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
        return propose(
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
        return mutate(rng, sample, edits, change, bounds=bounds, show_question=show_question)

    def check(
        self,
        settings: ValiditySettings,
        samples: Sequence[Sample],
        proposals: Sequence[Proposal],
        cleans: Sequence[Image.Image],
        editeds: Sequence[Image.Image],
        judge: Answerer | None = None,
    ) -> list[Verdict]:
        del judge  # A parser reads what was painted.
        return WorldChecker(settings).check(samples, proposals, cleans, editeds)
