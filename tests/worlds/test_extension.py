"""Scene extension keeps the original, and each of its three checks rejects what it is there for."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image, ImageChops

from aot_core.contracts.prepare_data import CocoSettings, ExtensionSettings, ProceduralSettings
from aot_core.contracts.scene import Box, SceneObject
from aot_core.worlds.extension import (
    Extended,
    Rejection,
    check_extension,
    copies_in_new_part,
    extend_photo,
    extend_world,
    seam_step,
)
from aot_core.worlds.photographs.coco import CocoSource
from aot_core.worlds.shapes import world
from aot_core.worlds.sources import Picture, ProceduralSource, redraw

SETTINGS = ExtensionSettings()
SOURCE = ProceduralSource(ProceduralSettings(), seed=3)


def extensions(count: int = 40, settings: ExtensionSettings = SETTINGS) -> list[tuple[Picture, Extended]]:
    rng = np.random.default_rng(0)
    return [(source, extend_world(rng, source, settings)) for source in map(SOURCE.picture, range(count))]


def test_a_procedural_extension_is_the_whole_world_around_its_view() -> None:
    for source, extended in extensions():
        picture = extended.picture
        assert picture.image.size == (64, 64) and source.image.size == (48, 48)
        # Painted on, not pasted together: drawn as a whole it is pixel for pixel the same.
        assert ImageChops.difference(redraw(picture, picture.scene.objects).image, picture.image).getbbox() is None
        assert len(picture.scene.objects) - len(source.scene.objects) in (0, 1)
        assert picture.scene.source_id == source.scene.source_id


def test_duplication_rejects_a_second_copy_and_nothing_else() -> None:
    pairs = extensions(300, ExtensionSettings(objects=(3, 3)))
    for source, extended in pairs:
        names = [thing.name for thing in extended.picture.scene.objects]
        rejection = check_extension(source, extended, SETTINGS)
        assert rejection == (None if len(set(names)) == len(names) else Rejection("duplication"))
    assert any(check_extension(source, extended, SETTINGS) for source, extended in pairs)


def test_composition_rejects_a_disturbed_original() -> None:
    source, extended = extensions(1)[0]
    image = extended.picture.image.copy()
    corner = int(extended.original.x) + 4, int(extended.original.y) + 4
    image.paste((0, 0, 0), (*corner, corner[0] + 14, corner[1] + 14))
    spoiled = replace(extended, picture=replace(extended.picture, image=image))
    assert check_extension(source, spoiled, SETTINGS) == Rejection("composition")
    moved = replace(extended, original=extended.original.model_copy(update={"x": 3}))
    assert check_extension(source, moved, SETTINGS) == Rejection("composition")


def test_realism_rejects_what_no_painter_would_paint() -> None:
    source, extended = extensions(1)[0]
    inside = SceneObject(box=extended.original, attributes={"colour": "red", "shape": "star"})
    picture = extended.picture.with_objects(extended.picture.image, (*extended.picture.scene.objects, inside))
    assert check_extension(source, replace(extended, picture=picture), SETTINGS) == Rejection("realism")


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
    assert check_extension(source, extended, SETTINGS) is None


def test_a_copied_object_and_a_hard_seam_are_rejected(coco: Callable[..., Path]) -> None:
    source, extended = photo_extension(coco)
    box, thing = extended.original, extended.picture.scene.objects[1].box
    crop = extended.picture.image.crop((int(thing.x), int(thing.y), int(thing.right), int(thing.bottom)))
    free = (0, 0) if box.y > 40 else (0, 200)
    copied = extended.picture.image.copy()
    copied.paste(crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT), free)
    twice = replace(extended, picture=replace(extended.picture, image=copied))
    assert copies_in_new_part(twice) > 0.9 > copies_in_new_part(extended)
    assert check_extension(source, twice, SETTINGS) == Rejection("duplication")

    flat = Image.new("RGB", extended.picture.image.size, (255, 0, 255))
    flat.paste(source.image, (int(box.x), int(box.y)))
    pasted = replace(extended, picture=replace(extended.picture, image=flat))
    assert seam_step(pasted) > 5 * seam_step(extended)
    assert check_extension(source, pasted, SETTINGS) == Rejection("realism")


def test_a_source_as_large_as_its_canvas_has_no_seam(coco: Callable[..., Path]) -> None:
    source, _ = photo_extension(coco)
    whole = Extended(source, Box(x=0, y=0, width=200, height=150))
    assert seam_step(whole) == 1.0
    assert copies_in_new_part(whole) == -1.0


def test_the_new_cells_are_where_the_new_objects_stand() -> None:
    for source, extended in extensions(60, ExtensionSettings(objects=(1, 1))):
        (new,) = extended.picture.scene.objects[len(source.scene.objects) :]
        assert world.cell_box(world.cell_of(new.box)).overlap(extended.original) == 0
