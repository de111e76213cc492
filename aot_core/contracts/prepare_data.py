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
"""Incremented by hand when the stage gives a different result for the same config and inputs."""
STAGE = StageDeclaration(data_set=True, promoted_with=True)

TrainingFamily = Literal["semantic", "irrelevant"]
"""The families that pairs may be trained on; "unseen" is kept for evaluation."""


class ProceduralSettings(Frozen):
    """Coloured shapes on a shaded ground. Boxes and true answers are exact, and the supply of scenes is unlimited."""

    type: Literal["procedural"] = "procedural"
    objects: tuple[int, int] = (2, 3)
    """Minimum and maximum number of objects in a source scene of 3 x 3 cells."""

    @model_validator(mode="after")
    def _range(self) -> "ProceduralSettings":
        least, most = self.objects
        if not 1 <= least <= most <= 9:
            raise ValueError(f"source.objects is {self.objects}; give least and most with 1 <= least <= most <= 9")
        return self


class PhotoSettings(Frozen):
    """What every source of annotated photographs has."""

    max_side: int | None = Field(default=None, ge=64, le=1_000_000)
    """Larger photographs are scaled down to this many pixels along their longer side. None: no scaling."""
    implies: dict[Name, tuple[Name, ...]] = Field(default_factory=dict)
    """Maps a category to categories that its image may show without a box of their own (person: nose). Questions that
    such an unboxed object could make ambiguous are not asked. What a COCO file's supercategories imply need not be
    repeated here, if they are categories with boxes."""
    max_rejected: float = Field(default=0.05, ge=0, lt=1)
    """Maximum share of unusable photographs (a box outside the image, a truncated file). Each is excluded as a whole,
    with its reason, because a question about half of its annotations could be wrong. Above this share the source is
    rejected; 0 rejects it at the first one."""


class CocoSettings(PhotoSettings):
    """Photographs with boxes in COCO's instances format. The folder is the campaign's `source_folder`."""

    type: Literal["coco"]
    images: Line = "images"
    """The folder of images inside the source folder. "." or "" is the source folder itself."""
    annotations: Name = "instances.json"
    """The instances file inside the source folder. It is streamed, so it may be large."""


class DatasetsSettings(PhotoSettings):
    """A folder that Hugging Face `datasets` loads (Parquet with images, or image files with metadata), with boxes.

    A row has an image and a struct of two lists: boxes and their labels (names, or numbers of a ClassLabel).
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
    """The column with each image's licence. Empty: none."""


SourceSettings = Annotated[ProceduralSettings | CocoSettings | DatasetsSettings, Field(discriminator="type")]


class SplitSizes(Frozen):
    """Number of samples per split; with `growing`, the share of each split. No source image is in two splits."""

    warm_start: int = Field(default=1500, ge=0, le=100_000_000)
    """Pairs (clean, edited) for the Attacker's warm start; their clean halves are the Defender's."""
    train: int = Field(default=2400, ge=0, le=100_000_000)
    """Questions on clean scenes, for the rounds of both learners."""
    evaluate: int = Field(default=300, ge=0, le=100_000_000)
    """Held-out questions, each once clean and once for every evaluated family."""

    @model_validator(mode="after")
    def _some(self) -> "SplitSizes":
        if self.warm_start + self.train + self.evaluate == 0:
            raise ValueError("splits: every size is 0; give at least one split a size")
        return self


class KindWeights(Frozen):
    """Relative frequency of each kind of question."""

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
    """Maximum number of extensions tried per source."""
    objects: tuple[int, int] = (0, 1)
    """Procedural scenes: minimum and maximum number of objects painted into the new area."""
    scale: tuple[float, float] = (1.35, 1.6)
    """Photographs: minimum and maximum ratio of the canvas's sides to the photograph's."""
    pasted: tuple[int, int] = (0, 0)
    """Photographs: minimum and maximum number of objects from other photographs of the split that are pasted into the
    new area. A pair can remove or replace them without a trace."""
    min_ssim: float = Field(default=0.97, ge=0, le=1)
    """Composition: minimum SSIM of the original inside the extended scene."""
    max_copy: float = Field(default=0.7, ge=0, le=1)
    """Duplication, photographs: maximum similarity of any place in the new area to an object; 1 is an exact copy."""
    max_seam: float = Field(default=2.5, gt=0, le=1_000_000)
    """Realism, photographs: maximum step across the seam, relative to the usual step between neighbouring pixels."""
    editor: ModelName | None = None
    """Photographs: the diffusers pipeline (folder or hub name) that outpaints, by inpainting or by editing. None: the
    photograph's mirrored and blurred border."""
    editor_prompt: Prompt = "The same scene, continued naturally beyond its borders."
    """Prompt of the outpainting pipeline."""
    editor_steps: int = Field(default=30, ge=1, le=1000)
    """Denoising steps of the outpainting pipeline."""
    checker: ModelName | None = None
    """An image-text-to-text model (folder or hub name) that repeats the three checks by prompt, as in the paper, after
    the checks by geometry and pixels. None: only the latter."""

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
    """Relative frequency of each kind of edit."""

    add: float = Field(default=6, ge=0, le=1_000_000)
    remove: float = Field(default=1, ge=0, le=1_000_000)
    replace: float = Field(default=1, ge=0, le=1_000_000)

    @model_validator(mode="after")
    def _some(self) -> "EditWeights":
        if self.add + self.remove + self.replace == 0:
            raise ValueError("implantation.edits: every weight is 0; give at least one kind of edit a weight")
        return self


class ImplantationSettings(Frozen):
    """Adversarial implantation: edits that preserve the true answer and the protected boxes."""

    edits: EditWeights = EditWeights()
    """The kinds of edit in warm-start pairs; evaluation only adds."""
    distractors: tuple[int, int] = (1, 3)
    """Minimum and maximum number of edits in a warm-start pair."""
    families: tuple[TrainingFamily, ...] = Field(default=("semantic", "irrelevant"), min_length=1)
    """Families of warm-start pairs, in equal shares."""
    open_instructions: float = Field(default=0.5, ge=0, le=1)
    """The share of edits whose instruction leaves the content to the editor ("Add an object at ...")."""
    evaluated: tuple[DistractorFamily, ...] = ("semantic", "irrelevant", "unseen")
    """Families that every held-out question is asked with."""
    evaluated_distractors: int = Field(default=3, ge=1, le=8)
    """Distractors in each edited held-out scene."""
    near: float = Field(default=0.0, ge=0, le=1)
    """Share of the added distractors (except irrelevant ones) that are placed near the objects of the question, if
    there is room. The others are placed anywhere."""
    min_ssim: float = Field(default=0.85, ge=-1, le=1)
    """Minimum localized SSIM of a pair. Below it, the edit is too close to a protected box."""
    attempts: int = Field(default=6, ge=1, le=1000)
    """Maximum number of implantations tried per question."""

    @model_validator(mode="after")
    def _range(self) -> "ImplantationSettings":
        least, most = self.distractors
        if not 1 <= least <= most <= 8:
            raise ValueError(f"implantation.distractors is {self.distractors}; give 1 <= least <= most <= 8")
        return self


class EffectivenessSettings(Frozen):
    """The effectiveness filter: which pairs fool the base Defender (right when clean, wrong when edited)."""

    enabled: bool = True
    samples: int = Field(default=3, ge=1, le=1024)
    """Answers sampled per image. "Right" means that all are right, "wrong" that none is."""
    temperature: float = Field(default=1.0, ge=0, le=100)
    keep_ineffective: float = Field(default=0.0, ge=0, le=1)
    """Share of ineffective pairs that is kept. 0 is the paper's filter; 1 keeps all and only records the result."""
    asked: int | None = Field(default=None, ge=1, le=100_000_000)
    """Ask the base Defender about this many pairs only and keep the others unasked. None: all pairs."""
    max_new_tokens: int = Field(default=16, ge=1, le=131_072)
    """Maximum length of an answer in tokens. A base model that reasons before it answers needs hundreds."""
    dtype: DType = "float32"
    """Precision of the base Defender's weights."""


class ImageFormat(Frozen):
    """How the data set's images are stored."""

    type: Literal["png", "jpeg", "webp"] = "png"
    """PNG is lossless. The others are smaller; SSIM and the effectiveness filter see the compressed images."""
    quality: int = Field(default=92, ge=1, le=100)
    """Quality of JPEG and WebP."""


class GuardSettings(Frozen):
    """Limits of the data validation."""

    letter_p: float = Field(default=1e-6, ge=0, lt=1)
    """A letter's share of the right answers is rejected if its probability by chance is below this (exact binomial
    test, corrected for the number of letters)."""
    near_duplicate_bits: int = Field(default=8, ge=0, le=192)
    """Photographs of two splits are near-duplicates, and rejected, if their perceptual hashes differ in at most this
    many of 192 bits."""
    min_effective: float = Field(default=0.0, ge=0, le=1)
    """Minimum share of effective pairs among the kept pairs that the base Defender was asked about."""


class DataLimits(Frozen):
    """Limits on the input."""

    max_image_pixels: int = Field(default=40_000_000, ge=1, le=10_000_000_000)
    """Maximum number of pixels of one image, read from the file's header before anything is decoded."""
    max_attempts: int = Field(default=20, ge=1, le=100_000)
    """Maximum number of sources tried per requested sample."""


class PrepareDataConfig(Frozen):
    """Everything that determines the data set, except the source folder and the base Defender, which are inputs."""

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
    """Questions per shard. A shard is the workers' unit of work, and the most that a killed run loses."""
    seed: StageSeed = 0
    """Filled in by the campaign."""
    growing: Annotated[bool, LATER] = False
    """Photographs: whether the source folder grows and the data set with it. Each photograph then gives
    `questions_per_picture` samples, and `splits` are shares of the photographs, not numbers of samples. A photograph's
    split depends only on its content, never on the seed or on other photographs, except that near-duplicates share a
    split. Only the shards of new photographs are built; the others are taken from the data set given as `previous`."""
    questions_per_picture: Annotated[int, LATER] = Field(default=4, ge=1, le=1024)
    """With `growing`: samples (in `evaluate`, questions) per photograph. A shard whose photographs yield fewer is kept
    as it is."""

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
