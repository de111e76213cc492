"""`prepare_data`: source scenes to questions, extended scenes, implantation pairs and held-out sets (arXiv 2602.22227,
phase 1)."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from aot_core.contracts.artifact import ArtifactRef, ExternalRef
from aot_core.contracts.base import LATER, Frozen
from aot_core.contracts.learning import DType
from aot_core.contracts.scene import DistractorFamily
from aot_core.contracts.stage import StageDeclaration
from aot_core.contracts.texts import Line, ModelName, Name, Prompt, StageSeed

VERSION = 5
"""Raised by hand when the stage gives another result for the same config and inputs."""
STAGE = StageDeclaration(data_set=True, promoted_with=True)

TrainingFamily = Literal["semantic", "irrelevant"]
"""The families that pairs may be trained on; "unseen" is kept for evaluation."""


class ProceduralSettings(Frozen):
    """Coloured shapes on a shaded ground; every box and every truth exact, without end."""

    type: Literal["procedural"] = "procedural"
    objects: tuple[int, int] = (2, 3)
    """How many objects a source scene of 3 x 3 cells holds: least, most."""

    @model_validator(mode="after")
    def _range(self) -> "ProceduralSettings":
        least, most = self.objects
        if not 1 <= least <= most <= 9:
            raise ValueError(f"source.objects is {self.objects}; give least and most with 1 <= least <= most <= 9")
        return self


class PhotoSettings(Frozen):
    """What every source of annotated photographs has."""

    max_side: int | None = Field(default=None, ge=64, le=1_000_000)
    """Larger photographs are scaled down to so many pixels along their longer side; none when left out."""
    implies: dict[Name, tuple[Name, ...]] = Field(default_factory=dict)
    """Category to categories that a picture of it may show without a box of their own (person: nose). Questions
    that such an unboxed thing could make disputable are not asked. What a COCO file's supercategories imply, where
    they are categories with boxes, need not be told."""
    max_rejected: float = Field(default=0.05, ge=0, lt=1)
    """The share of the photographs that may be unusable (a box outside the image, a file that is cut off). Each is
    left out whole, with its reason, as a question about half of its annotations could be wrong. Above this share
    the source is refused; 0 refuses it for the first."""


class CocoSettings(PhotoSettings):
    """Photographs with boxes in COCO's instances format. Which folder it is, the campaign's input says."""

    type: Literal["coco"]
    images: Line = "images"
    """The folder of images, inside the source folder; "." or nothing is that folder itself."""
    annotations: Name = "instances.json"
    """The instances file, inside the source folder. Read as a stream, however large it is."""


class DatasetsSettings(PhotoSettings):
    """A folder that Hugging Face `datasets` loads (Parquet with images, or image files with metadata), with boxes.

    A row has an image and a struct of two lists: boxes, and what each shows (names, or numbers of a ClassLabel).
    """

    type: Literal["datasets"]
    split: Name = "train"
    """Which of the folder's splits is read."""
    image: Name = "image"
    """The image column."""
    objects: Name = "objects"
    """The column of the struct."""
    boxes: Name = "bbox"
    """The struct's list of boxes: four numbers each, in pixels of the upright image."""
    names: Name = "category"
    """The struct's list of names."""
    box_format: Literal["xywh", "xyxy"] = "xywh"
    """Corner and size, or two corners."""
    licence: Line = ""
    """The column of each image's licence; none when left out."""


SourceSettings = Annotated[ProceduralSettings | CocoSettings | DatasetsSettings, Field(discriminator="type")]


class SplitSizes(Frozen):
    """How many samples each split gets; with `growing`, each split's share. No source image stands in two splits."""

    warm_start: int = Field(default=1500, ge=0, le=100_000_000)
    """Pairs (clean, edited) for the Attacker's warm start; their clean halves are the Defender's."""
    train: int = Field(default=2400, ge=0, le=100_000_000)
    """Questions on clean scenes, for the rounds of both learners."""
    evaluate: int = Field(default=300, ge=0, le=100_000_000)
    """Held-out questions; each is there once clean and once for every evaluated family."""

    @model_validator(mode="after")
    def _some(self) -> "SplitSizes":
        if self.warm_start + self.train + self.evaluate == 0:
            raise ValueError("splits: every size is 0; give at least one split a size")
        return self


class KindWeights(Frozen):
    """How often each kind of question is asked, relative to the others."""

    existence: float = Field(default=4, ge=0, le=1_000_000)
    attribute: float = Field(default=2, ge=0, le=1_000_000)
    relation: float = Field(default=2, ge=0, le=1_000_000)
    count: float = Field(default=2, ge=0, le=1_000_000)

    @model_validator(mode="after")
    def _some(self) -> "KindWeights":
        if self.existence + self.attribute + self.relation + self.count == 0:
            raise ValueError("kinds: every weight is 0; give at least one kind a weight")
        return self


class ExtensionSettings(Frozen):
    """Scene extension: the source image on a larger canvas, accepted or rejected by three checks."""

    enabled: bool = True
    attempts: int = Field(default=4, ge=1, le=1000)
    """Extensions tried per source before it is given up."""
    objects: tuple[int, int] = (0, 1)
    """Procedural: how many objects are painted into the new part: least, most."""
    scale: tuple[float, float] = (1.35, 1.6)
    """Photographs: the canvas's sides over the photograph's: least, most."""
    pasted: tuple[int, int] = (0, 0)
    """Photographs: how many things from other photographs of the split are pasted into the new part: least, most.
    They are what a pair can take away or replace without a trace."""
    min_ssim: float = Field(default=0.97, ge=0, le=1)
    """Composition: the SSIM of the original inside the extended scene."""
    max_copy: float = Field(default=0.7, ge=0, le=1)
    """Duplication, photographs: how like an object any place in the new part may be; 1 is a true copy."""
    max_seam: float = Field(default=2.5, gt=0, le=1_000_000)
    """Realism, photographs: the step across the seam over the usual step between neighbouring pixels."""
    editor: ModelName | None = None
    """Photographs: the diffusers pipeline (a folder or a hub name) that outpaints, by inpainting or by editing. Left
    out, the photograph's mirrored and blurred border does."""
    editor_prompt: Prompt = "The same scene, continued naturally beyond its borders."
    """What the outpainting pipeline is told."""
    editor_steps: int = Field(default=30, ge=1, le=1000)
    """Denoising steps of the outpainting pipeline."""
    checker: ModelName | None = None
    """The image-text-to-text model (a folder or a hub name) that makes the three checks by prompt, as the paper has
    it, after those by geometry and pixels. Left out, these decide alone."""

    @model_validator(mode="after")
    def _ranges(self) -> "ExtensionSettings":
        if not 0 <= self.objects[0] <= self.objects[1] <= 7:
            raise ValueError(f"extension.objects is {self.objects}; give least <= most within 0..7 (the new cells)")
        if not 0 <= self.pasted[0] <= self.pasted[1] <= 7:
            raise ValueError(f"extension.pasted is {self.pasted}; give least <= most within 0..7")
        if not 1 <= self.scale[0] <= self.scale[1] <= 4:
            raise ValueError(f"extension.scale is {self.scale}; give least <= most within 1..4")
        return self


class EditWeights(Frozen):
    """How often each kind of edit is made, relative to the others."""

    add: float = Field(default=6, ge=0, le=1_000_000)
    remove: float = Field(default=1, ge=0, le=1_000_000)
    replace: float = Field(default=1, ge=0, le=1_000_000)

    @model_validator(mode="after")
    def _some(self) -> "EditWeights":
        if self.add + self.remove + self.replace == 0:
            raise ValueError("implantation.edits: every weight is 0; give at least one kind of edit a weight")
        return self


class ImplantationSettings(Frozen):
    """Adversarial implantation: edits that leave the truth and the protected boxes alone."""

    edits: EditWeights = EditWeights()
    """The kinds of edit in warm-start pairs; evaluation only adds."""
    distractors: tuple[int, int] = (1, 3)
    """Edits in a warm-start pair: least, most."""
    families: tuple[TrainingFamily, ...] = Field(default=("semantic", "irrelevant"), min_length=1)
    """Families of warm-start pairs, in equal shares."""
    open_instructions: float = Field(default=0.5, ge=0, le=1)
    """The share of edits whose instruction leaves the content to the editor ("Add an object at ...")."""
    evaluated: tuple[DistractorFamily, ...] = ("semantic", "irrelevant", "unseen")
    """Families that every held-out question is asked with."""
    evaluated_distractors: int = Field(default=3, ge=1, le=8)
    """Distractors in each edited held-out scene."""
    near: float = Field(default=0.0, ge=0, le=1)
    """The share of added distractors, irrelevant ones apart, that are put in the neighbourhood of the objects that the
    question is about, where there is room; the others stand anywhere."""
    min_ssim: float = Field(default=0.85, ge=-1, le=1)
    """The least localized SSIM of a pair; below, the edit comes too close to a protected box."""
    attempts: int = Field(default=6, ge=1, le=1000)
    """Implantations tried per question before it is given up."""

    @model_validator(mode="after")
    def _range(self) -> "ImplantationSettings":
        least, most = self.distractors
        if not 1 <= least <= most <= 8:
            raise ValueError(f"implantation.distractors is {self.distractors}; give 1 <= least <= most <= 8")
        return self


class EffectivenessSettings(Frozen):
    """Which pairs fool the base Defender: right on the clean scene, wrong on the edited one."""

    enabled: bool = True
    samples: int = Field(default=3, ge=1, le=1024)
    """Answers asked for per image. Right means all are right, wrong means none is."""
    temperature: float = Field(default=1.0, ge=0, le=100)
    keep_ineffective: float = Field(default=0.0, ge=0, le=1)
    """The share of ineffective pairs that is kept all the same. 0 is the paper's filter; 1 only records."""
    asked: int | None = Field(default=None, ge=1, le=100_000_000)
    """Ask about so many pairs only and keep the others unasked; all when left out."""
    max_new_tokens: int = Field(default=16, ge=1, le=131_072)
    """The longest answer; a base model that reasons before it answers needs hundreds."""
    dtype: DType = "float32"
    """How the base Defender is loaded."""


class ImageFormat(Frozen):
    """How the data set's images are stored."""

    type: Literal["png", "jpeg", "webp"] = "png"
    """PNG is exact; the others are smaller, and what they change is changed before SSIM and filter look."""
    quality: int = Field(default=92, ge=1, le=100)
    """Of JPEG and WebP."""


class GuardSettings(Frozen):
    """What the data must be like to be let through."""

    letter_p: float = Field(default=1e-6, ge=0, lt=1)
    """A letter's share of the right answers is refused where chance alone would bring it with less than this
    probability (exact binomial test, corrected for the number of letters)."""
    near_duplicate_bits: int = Field(default=8, ge=0, le=192)
    """Photographs of two splits may not be as alike as this: bits of 192 in which their perceptual hashes differ."""
    min_effective: float = Field(default=0.0, ge=0, le=1)
    """The least share of effective pairs among those that the base Defender was asked about and that were kept."""


class DataLimits(Frozen):
    """What is refused."""

    max_image_pixels: int = Field(default=40_000_000, ge=1, le=10_000_000_000)
    """Pixels of one image. Looked up in the file's header before anything is decoded."""
    max_attempts: int = Field(default=20, ge=1, le=100_000)
    """Sources tried per wanted sample before the stage gives up."""


class PrepareDataConfig(Frozen):
    """Everything that decides the data but the source folder and the base Defender, which are inputs."""

    source: SourceSettings = ProceduralSettings()
    splits: SplitSizes = SplitSizes()
    kinds: KindWeights = KindWeights()
    extension: ExtensionSettings = ExtensionSettings()
    implantation: ImplantationSettings = ImplantationSettings()
    effectiveness: EffectivenessSettings = EffectivenessSettings()
    format: ImageFormat = ImageFormat()
    guard: GuardSettings = GuardSettings()
    limits: DataLimits = DataLimits()
    shard_size: int = Field(default=250, ge=1, le=1_000_000)
    """Questions in a shard: the unit that workers share out, and the most that a killed run loses."""
    seed: StageSeed = 0
    """Filled in by the campaign."""
    growing: Annotated[bool, LATER] = False
    """Photographs: whether the source folder grows, so that the data set grows with it: each photograph gives
    `questions_per_picture` samples, and `splits` are the splits' shares of the photographs, not numbers of samples. A
    photograph's split follows from what it looks like, never from the seed or from the others, except that one that
    looks like another goes where that one is. Of a grown folder only the shards of new photographs are made; the others
    are taken from the data set given as `previous`."""
    questions_per_picture: Annotated[int, LATER] = Field(default=4, ge=1, le=1024)
    """growing: samples (in `evaluate`, questions) made of each photograph. A shard whose photographs yield fewer is
    kept as it is."""

    @model_validator(mode="after")
    def _growing(self) -> "PrepareDataConfig":
        if not self.growing:
            return self
        if self.source.type == "procedural":
            raise ValueError(
                "growing: the procedural source has no folder that grows; leave it out, or give photographs"
            )
        if self.effectiveness.asked is not None:
            raise ValueError(
                "effectiveness.asked: a growing data set has no size of which so many are asked; leave it out"
            )
        if self.questions_per_picture > self.shard_size:
            raise ValueError(
                f"questions_per_picture is {self.questions_per_picture} and shard_size {self.shard_size}, and a shard "
                "holds whole photographs: raise shard_size, or lower questions_per_picture"
            )
        return self

    @model_validator(mode="after")
    def _photographs(self) -> "PrepareDataConfig":
        if self.source.type == "procedural":
            if self.extension.editor or self.extension.checker:
                raise ValueError(
                    "extension.editor, extension.checker: procedural scenes are painted and checked exactly; leave "
                    "them out, or give a source of photographs"
                )
        elif "unseen" in self.implantation.evaluated:
            raise ValueError(
                'implantation.evaluated: photographs have no "unseen" family; give ["semantic", "irrelevant"]'
            )
        return self


class PrepareDataInputs(Frozen):
    """What the stage reads from outside the store."""

    source: ExternalRef | None = None
    """The folder of photographs; None for the procedural source."""
    defender: ExternalRef | None = None
    """The base Defender that the effectiveness filter asks; None where the filter is off."""
    editor: ExternalRef | None = None
    """`extension.editor`, pinned."""
    checker: ExternalRef | None = None
    """`extension.checker`, pinned."""
    previous: Annotated[ArtifactRef | None, LATER] = None
    """growing: the data set made before the folder grew. Its shards are taken over while all their photographs still
    stand unchanged. None makes every shard."""


class PrepareDataOutputs(Frozen):
    """The stage's summary."""

    samples: dict[str, float]
    """Split to samples."""
    pairs: int
    """Samples with an edited image, over all splits."""
    sources: int
    """Source images used."""
    unusable: int
    """Source images left out because something is wrong with them; `rejections.parquet` says what."""
    funnel: dict[str, float]
    """`step/outcome` to how often it happened: what was tried, accepted, and rejected for which reason."""
    mean_ssim: float
    """Localized SSIM of the pairs, mean; 1 without pairs."""
    least_ssim: float
    """The lowest of them."""
    effective_share: float
    """Of the pairs that the base Defender was asked about, those that fooled it; 0 where none was asked."""
    manifest_sha256: str
    """The data set's own hash: equal for equal data, whoever made it."""
    shards_made: int = 0
    """Shards that this data set does not share with `previous`."""
    shards_reused: int = 0
    """Shards taken from `previous`."""
    pictures_new: int = 0
    """growing: photographs that `previous` did not hold."""
    pictures_gone: int = 0
    """growing: photographs that only `previous` held."""
