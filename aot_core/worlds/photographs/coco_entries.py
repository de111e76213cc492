"""The entries of a file in COCO's instances format, as far as they are needed here; null is as good as missing."""

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator


class Entry(BaseModel):
    # COCO files carry many more fields than are needed here.
    model_config = ConfigDict(extra="ignore", frozen=True)


def _unknown(value: Any) -> Any:
    """Null, and the NaN that pandas writes for it, are as good as a field that is missing."""
    return None if value == "NaN" else value


Text = Annotated[str | None, BeforeValidator(_unknown)]
Ids = Annotated[tuple[int, ...] | None, BeforeValidator(_unknown)]


class ImageEntry(Entry):
    id: int
    file_name: str
    width: int = Field(gt=0)
    height: int = Field(gt=0)
    by_address: bool = False
    """Whether `file_name` is the end of `coco_url`."""
    license: Any = None
    source: Any = None
    """None of COCO's fields: a text there is taken for the image's licence."""
    neg_category_ids: Ids = None
    not_exhaustive_category_ids: Ids = None

    @model_validator(mode="before")
    @classmethod
    def _named_by_its_address(cls, value: Any) -> Any:
        if isinstance(value, dict) and not value.get("file_name") and isinstance(value.get("coco_url"), str):
            # LVIS has no file names. Its two last parts are COCO's own folder and file.
            return {**value, "file_name": "/".join(value["coco_url"].split("/")[-2:]), "by_address": True}
        return value

    @property
    def federated(self) -> bool:
        """Whether it says what its annotations cover."""
        return self.neg_category_ids is not None or self.not_exhaustive_category_ids is not None


class AnnotationEntry(Entry):
    id: int
    image_id: int
    category_id: int
    bbox: Any = None
    iscrowd: Annotated[int | None, BeforeValidator(_unknown)] = None


class CategoryEntry(Entry):
    id: int
    name: str = Field(min_length=1)
    supercategory: Text = None


class LicenseEntry(Entry):
    id: Any
    name: Text = None
    url: Text = None
