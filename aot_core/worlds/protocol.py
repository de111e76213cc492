"""What a world is: where its pictures come from, what is asked about them, how they are edited, when an edit is fair.

    source picture --extend--> scene --ask--> question --implant--> edited scene          the data set: `Domain`
    sample --propose, mutate--> proposal --editor--> edited image --check--> verdict               an attack: `World`

There are two, `worlds.shapes` and `worlds.photographs`. Which of them a config, a sample or a picture belongs to is
asked in `worlds.opening`, and nowhere else. What both share (truth, similarity, the types that flow) stands here beside
them.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

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
from aot_core.worlds.implantation import Implanted
from aot_core.worlds.proposals import Chooser, Proposal
from aot_core.worlds.sources import Picture, Source
from aot_core.worlds.validity import Verdict

if TYPE_CHECKING:
    # Not without torch, which commands do without.
    from aot_core.worlds.extension import Extended, ExtensionCheck, Rejection

DONORS = 64
"""How many photographs of a split distractors are cut from."""


class ProbeError(ValueError):
    """The picture, the question or a box cannot be used. The message names the field and the fix."""


class Reading(NamedTuple):
    """What a world knows of a user's own picture and question."""

    query: Query
    objects: tuple[SceneObject, ...]
    protected: tuple[Box, ...]


class Outpainter(Protocol):
    """Paints what is new on a canvas."""

    def outpaint(self, canvas: Image.Image, new: Image.Image, seed: int) -> Image.Image:
        """The canvas with its new part painted, of the same size. `new` (mode L) is 255 where it is new."""
        ...


class Checker(Protocol):
    """Judges an extended scene."""

    def check(self, source: Picture, extended: "Extended", seed: int) -> "Rejection | None":
        """None where the scene passes all three checks, else the first that it fails. The same seed, the same
        verdict."""
        ...


class Domain(Protocol):
    """One split of a world's source: how its pictures are opened, extended, asked about and edited."""

    @property
    def repeats(self) -> bool:
        """Whether one source picture gives many scenes."""
        ...

    @property
    def checks(self) -> Mapping[str, "ExtensionCheck"]:
        """What an extended picture is checked for, by name, in order."""
        ...

    def picture(self, index: int) -> Picture:
        """A source picture."""
        ...

    def extend(self, rng: np.random.Generator, source: Picture) -> "Extended":
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
    ) -> "Implanted | Rejection":
        """Carry out edits of the given kinds with distractors of a family."""
        ...


class World(Protocol):
    """A kind of world. It keeps nothing: all that is opened is a `Source` or a `Domain`."""

    @property
    def photographs(self) -> bool:
        """Whether its pictures are photographs: no parser reads them, and two of them may look alike."""
        ...

    def open_source(self, config: PrepareDataConfig, folder: Path | None, work: Path) -> Source:
        """The config's source; what is indexed is kept in the folder `work`, once for all that ask.

        Raises DataError where a source that needs a folder has none, or a bad one.
        """
        ...

    def open_domain(
        self, source: Source, config: PrepareDataConfig, indices: Sequence[int], outpainter: Outpainter | None = None
    ) -> Domain:
        """One split of the source, whose pictures have these numbers (endless sources: any)."""
        ...

    def read(self, image: Image.Image, question: str, answer: str, boxes: tuple[Box, ...]) -> Reading | None:
        """A user's own picture and question; None where they do not belong to this world.

        Args:
            answer: the right option, in its words.
            boxes: of what the question is about, as far as they are given.

        Raises ProbeError where they are of this world and cannot be used.
        """
        ...

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
        """Propose `edits` edits, each in a place of its own, around a sample's question.

        Args:
            kinds: what may be done; a kind named several times has more prior weight.
            named_share: the prior weight of saying what to paint against leaving it open.

        Raises ProposalError where there is no room for them.
        """
        ...

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
        """A proposal that differs from an edited scene's edits in one thing; as fair as those of `propose`. What the
        editor chose to paint is named in the new instruction, as far as it was read.

        Args:
            edits: those of a verdict, `added` as it was read.
            change: what is to differ.
            bounds: least and most edits that "fewer" and "more" may lead to.

        Returns None where the scene allows no such change.
        """
        ...

    def check(
        self,
        settings: ValiditySettings,
        samples: Sequence[Sample],
        proposals: Sequence[Proposal],
        cleans: Sequence[Image.Image],
        editeds: Sequence[Image.Image],
        judge: Answerer | None = None,
    ) -> list[Verdict]:
        """A verdict for every edited image.

        Args:
            judge: the model that `settings.judge` names, for photographs.

        Raises ValueError where the sequences differ in length, or where photographs need a judge and have none.
        """
        ...
