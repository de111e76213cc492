"""Scene extension keeps the original, and each of its three checks rejects what it is there for."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image, ImageChops

from aot_core.contracts.prepare_data import CocoSettings, ExtensionSettings
from aot_core.contracts.scene import Box
from aot_core.worlds.extension import Extended, Rejection, check_extension
from aot_core.worlds.photographs.coco import CocoSource
from aot_core.worlds.photographs.extension import CHECKS, copies_in_new_part, extend_photo, seam_step
from aot_core.worlds.sources import Picture

SETTINGS = ExtensionSettings()


def photo_extension(coco: Callable[..., Path]) -> tuple[Picture, Extended]:
    source = CocoSource(folder := coco(1), CocoSettings(type="coco"), folder / "work").picture(0)
    return source, extend_photo(np.random.default_rng(1), source, ExtensionSettings(scale=(1.6, 1.6)))


def test_a_photograph_stands_intact_on_its_canvas_and_its_boxes_move_along(coco: Callable[..., Path]) -> None:
    source, extended = photo_extension(coco)
    box = extended.original
    assert extended.picture.image.size == (320, 240)
    inside = extended.picture.image.crop((int(box.x), int(box.y), int(box.right), int(box.bottom)))
    assert ImageChops.difference(inside, source.image).getbbox() is None
    for before, after in zip(source.scene.objects, extended.picture.scene.objects, strict=True):
        assert after.box == before.box.shifted(box.x, box.y)
    assert check_extension(CHECKS, source, extended, SETTINGS) is None


def test_a_copied_object_and_a_hard_seam_are_rejected(coco: Callable[..., Path]) -> None:
    source, extended = photo_extension(coco)
    box, thing = extended.original, extended.picture.scene.objects[1].box
    crop = extended.picture.image.crop((int(thing.x), int(thing.y), int(thing.right), int(thing.bottom)))
    free = (0, 0) if box.y > 40 else (0, 200)
    copied = extended.picture.image.copy()
    copied.paste(crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT), free)
    twice = replace(extended, picture=replace(extended.picture, image=copied))
    assert copies_in_new_part(twice) > 0.9 > copies_in_new_part(extended)
    assert check_extension(CHECKS, source, twice, SETTINGS) == Rejection("duplication")

    flat = Image.new("RGB", extended.picture.image.size, (255, 0, 255))
    flat.paste(source.image, (int(box.x), int(box.y)))
    pasted = replace(extended, picture=replace(extended.picture, image=flat))
    assert seam_step(pasted) > 5 * seam_step(extended)
    assert check_extension(CHECKS, source, pasted, SETTINGS) == Rejection("realism")


def test_a_source_as_large_as_its_canvas_has_no_seam(coco: Callable[..., Path]) -> None:
    source, _ = photo_extension(coco)
    whole = Extended(source, Box(x=0, y=0, width=200, height=150))
    assert seam_step(whole) == 1.0
    assert copies_in_new_part(whole) == -1.0
