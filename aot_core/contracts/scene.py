"""What the data is made of: objects with boxes, scenes, questions, edits and samples.

A question's truth is never stored alone: its `Query` says what is asked in terms of object attributes, so that
the answer can be derived again from any list of objects (`aot_core.worlds.truth`), before and after an edit.
"""

from typing import Literal

from pydantic import Field, field_validator, model_validator

from aot_core.contracts.base import Frozen

LETTERS = "ABCDEFGH"
"""The option letters, in order. A question has two to eight options."""

QuestionKind = Literal["attribute", "existence", "relation", "count"]
EditKind = Literal["add", "remove", "replace"]
DistractorFamily = Literal["semantic", "irrelevant", "unseen"]
Split = Literal["warm_start", "train", "evaluate"]

Attributes = dict[str, str]
"""What is known of an object, or asked of one: {"colour": "red", "shape": "ring"}, {"name": "cup"}."""


class Box(Frozen):
    """An axis-aligned box in pixels, the origin at the image's upper left corner (COCO's xywh)."""

    x: float = Field(ge=0)
    y: float = Field(ge=0)
    width: float = Field(gt=0)
    height: float = Field(gt=0)

    @property
    def right(self) -> float:
        return self.x + self.width

    @property
    def bottom(self) -> float:
        return self.y + self.height

    @property
    def centre(self) -> tuple[float, float]:
        return self.x + self.width / 2, self.y + self.height / 2

    @property
    def area(self) -> float:
        """In square pixels."""
        return self.width * self.height

    def overlap(self, other: "Box") -> float:
        """The area that both cover, in square pixels."""
        width = min(self.right, other.right) - max(self.x, other.x)
        height = min(self.bottom, other.bottom) - max(self.y, other.y)
        return max(width, 0.0) * max(height, 0.0)

    def shifted(self, dx: float, dy: float) -> "Box":
        return Box(x=self.x + dx, y=self.y + dy, width=self.width, height=self.height)


class SceneObject(Frozen):
    """One object in a scene: its box and its attributes."""

    box: Box
    attributes: Attributes

    @property
    def name(self) -> str:
        """ "red ring", "cup": the attribute values in the order in which one says them."""
        return " ".join(self.attributes.values())

    def matches(self, wanted: Attributes) -> bool:
        """Whether every wanted attribute is this object's."""
        return all(self.attributes.get(key) == value for key, value in wanted.items())


class Scene(Frozen):
    """An image and all objects in it that a question may be about."""

    scene_id: str
    source_id: str
    """The source image. No source is in two splits."""
    width: int = Field(gt=0)
    height: int = Field(gt=0)
    objects: tuple[SceneObject, ...]
    licence: str = ""
    """Licence of the source image, as given by the source."""
    source_hash: str = ""
    """Perceptual hash of the source image (48 hex digits). Similar images differ in few of its bits."""

    @model_validator(mode="after")
    def _boxes_lie_inside(self) -> "Scene":
        for index, thing in enumerate(self.objects):
            # Half a pixel of tolerance: annotation tools round.
            if thing.box.right > self.width + 0.5 or thing.box.bottom > self.height + 0.5:
                raise ValueError(
                    f"scene {self.scene_id}: objects[{index}].box ({thing.name}) reaches outside the "
                    f"{self.width}x{self.height} image; correct the box in the annotation file"
                )
        return self


class Query(Frozen):
    """A question in terms of attributes."""

    kind: QuestionKind
    target: Attributes
    """The object or objects that the question is about."""
    reference: Attributes = Field(default_factory=dict)
    """For relation: the object to which the target's position is relative."""
    asked: str = ""
    """For attribute: the attribute whose value is the answer ("colour", "place")."""


class Question(Frozen):
    """A multiple-choice question about a scene; yes/no questions have the options "yes" and "no"."""

    query: Query
    text: str
    """The question alone, without options."""
    options: tuple[str, ...] = Field(min_length=2, max_length=len(LETTERS))
    answer: str
    """The letter of the right option."""
    protected: tuple[Box, ...] = ()
    """The boxes of the objects that the question is about: no edit may touch them."""

    @field_validator("options")
    @classmethod
    def _options_differ(cls, options: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(options)) != len(options):
            raise ValueError(f"options repeat: {options}; every option must differ")
        return options

    @model_validator(mode="after")
    def _answer_is_an_option(self) -> "Question":
        letters = LETTERS[: len(self.options)]
        if len(self.answer) != 1 or self.answer not in letters:
            raise ValueError(f"answer {self.answer!r} is not among the options' letters {', '.join(letters)}")
        return self

    @property
    def answer_text(self) -> str:
        return self.options[LETTERS.index(self.answer)]

    @property
    def prompt(self) -> str:
        """The question as an MLLM is asked it: options a line each, the answer wanted as `\\boxed{X}`."""
        lines = [self.text, *(f"{LETTERS[i]}. {option}" for i, option in enumerate(self.options))]
        return "\n".join([*lines, "Answer with \\boxed{X}."])


class Edit(Frozen):
    """A change of a scene that preserves the true answer to its question."""

    kind: EditKind
    instruction: str
    """The instruction to an image editor, complete in itself: `Add a red ring at row 2, column 3.`"""
    family: DistractorFamily
    region: Box
    """The pixels that the edit may change."""
    removed: SceneObject | None = None
    added: SceneObject | None = None


class Sample(Frozen):
    """A question about a scene, and (in a pair) the same question about the edited scene.

    Image paths are relative to the data set's folder.
    """

    sample_id: str
    split: Split
    scene: Scene
    question: Question
    image: str
    edits: tuple[Edit, ...] = ()
    edited_image: str | None = None
    edited_objects: tuple[SceneObject, ...] = ()
    """All objects of the edited scene."""
    ssim: float | None = None
    """Localized SSIM between image and edited image on the protected boxes."""
    clean_correct: float | None = None
    """Share of right answers of the filtering Defender on the clean image. None if it was not asked."""
    edited_correct: float | None = None
    """The same on the edited image."""

    @property
    def instruction(self) -> str:
        """All edits as one instruction to the editor."""
        return " ".join(edit.instruction for edit in self.edits)
