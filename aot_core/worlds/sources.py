"""Where scenes come from: pictures by number, each an image with all its objects.

    source ----> Picture (image, scene) ----> extension ----> questions ----> implantation

Each world has sources of its own: `shapes.source` draws pictures, `photographs.coco` and `photographs.datasets` read
them from annotated photographs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol, Self, runtime_checkable

from PIL import Image

from aot_core.contracts.scene import Query, Scene, SceneObject
from aot_core.worlds.coverage import Coverage, leaves_open
from aot_core.worlds.images import DataError
from aot_core.worlds.truth import truth


@dataclass(frozen=True)
class Picture:
    """A scene and its pixels."""

    scene: Scene
    image: Image.Image
    """RGB, as large as the scene says."""
    doubtful: tuple[SceneObject, ...] = ()
    """Photographs: what may be seen without being annotated (crowds, implied parts, halves of things)."""

    coverages: tuple[Coverage, ...] = ()
    """Photographs: what the annotations cover of each picture that this one is put together from, where that is not
    everything."""

    def with_objects(self, image: Image.Image, objects: tuple[SceneObject, ...]) -> Self:
        """The same scene with other pixels and objects."""
        return replace(self, image=image, scene=self.scene.model_copy(update={"objects": objects}))

    def settled(self, query: Query) -> str | None:
        """The truth of a query, None also where a doubtful object, or one without annotation, would change it."""
        certain = truth(query, self.scene.objects)
        if leaves_open(self.coverages, query, certain):
            return None
        if self.doubtful and truth(query, (*self.scene.objects, *self.doubtful)) != certain:
            return None
        return certain


class Unusable(NamedTuple):
    """A source picture that was left out, and why."""

    source_id: str
    reason: str
    detail: str


class Source(Protocol):
    """Source pictures by number, so that splits can share them out before any is opened."""

    @property
    def size(self) -> int | None:
        """How many pictures there are; None without end."""
        ...

    @property
    def names(self) -> tuple[str, ...]:
        """Every name that a thing may have; empty where things are described by attributes."""
        ...

    @property
    def kinds(self) -> Mapping[str, str]:
        """Name to the kind of thing it is a name of; empty where the source knows none."""
        ...

    @property
    def unusable(self) -> list[Unusable]:
        """What was left out, and is not counted by `size`, before any picture was opened."""
        ...

    @property
    def max_rejected(self) -> float:
        """The share of its pictures that may be unusable."""
        ...

    def picture(self, index: int) -> Picture:
        """The picture of a number from 0; the same number gives the same picture.

        Raises RowError where this one picture cannot be used.
        """
        ...


def refuse_if_too_many(unusable: Sequence[Unusable], total: int, most: float) -> None:
    """Raises DataError, naming the first ones, where more than the share `most` of the pictures is unusable."""
    if total and len(unusable) <= most * total:
        return
    named = "; ".join(one.detail for one in unusable[:3])
    raise DataError(
        f"{len(unusable)} of {total} photographs cannot be used, more than source.max_rejected = {most:g} allows: "
        f"{named or 'there are none'}"
    )


@runtime_checkable
class Photographs(Source, Protocol):
    """A source of existing pictures: each is identified by its contents, wherever it is stored."""

    def content(self, index: int) -> tuple[str, str]:
        """A picture's name in plain letters, and the sha256 of that, its file and its annotations.

        Nothing is decoded. Raises RowError where the file cannot be read.
        """
        ...


class NamedByContent:
    """Photographs whose ids follow from their contents: numbers change when a folder grows."""

    def __init__(self, source: Photographs) -> None:
        self._source = source
        self.size, self.names, self.kinds, self.unusable = source.size, source.names, source.kinds, source.unusable
        self.max_rejected = source.max_rejected

    def picture(self, index: int) -> Picture:
        """See `Source.picture`."""
        label, content = self._source.content(index)
        picture = self._source.picture(index)
        name = f"{label}-{content[:12]}"
        return replace(picture, scene=picture.scene.model_copy(update={"scene_id": name, "source_id": name}))


def move(thing: SceneObject, dx: float, dy: float) -> SceneObject:
    """The object, `dx` pixels to the right and `dy` down."""
    return thing.model_copy(update={"box": thing.box.shifted(dx, dy)})
