"""Scene extension keeps the original, and each of its three checks rejects what it is there for."""

from dataclasses import replace

import numpy as np
from PIL import ImageChops

from aot_core.contracts.prepare_data import ExtensionSettings, ProceduralSettings
from aot_core.contracts.scene import SceneObject
from aot_core.worlds.extension import Extended, Rejection, check_extension
from aot_core.worlds.shapes import world
from aot_core.worlds.shapes.extension import CHECKS, extend_world
from aot_core.worlds.shapes.source import DrawnPicture, ProceduralSource, redraw

SETTINGS = ExtensionSettings()
SOURCE = ProceduralSource(ProceduralSettings(), seed=3)


def extensions(count: int = 40, settings: ExtensionSettings = SETTINGS) -> list[tuple[DrawnPicture, Extended]]:
    rng = np.random.default_rng(0)
    return [(source, extend_world(rng, source, settings)) for source in map(SOURCE.picture, range(count))]


def test_a_procedural_extension_is_the_whole_world_around_its_view() -> None:
    for source, extended in extensions():
        picture = extended.picture
        assert isinstance(picture, DrawnPicture)
        assert picture.image.size == (64, 64) and source.image.size == (48, 48)
        # Painted on, not pasted together: drawn as a whole it is pixel for pixel the same.
        assert ImageChops.difference(redraw(picture, picture.scene.objects).image, picture.image).getbbox() is None
        assert len(picture.scene.objects) - len(source.scene.objects) in (0, 1)
        assert picture.scene.source_id == source.scene.source_id


def test_duplication_rejects_a_second_copy_and_nothing_else() -> None:
    pairs = extensions(300, ExtensionSettings(objects=(3, 3)))
    for source, extended in pairs:
        names = [thing.name for thing in extended.picture.scene.objects]
        rejection = check_extension(CHECKS, source, extended, SETTINGS)
        assert rejection == (None if len(set(names)) == len(names) else Rejection("duplication"))
    assert any(check_extension(CHECKS, source, extended, SETTINGS) for source, extended in pairs)


def test_composition_rejects_a_disturbed_original() -> None:
    source, extended = extensions(1)[0]
    image = extended.picture.image.copy()
    corner = int(extended.original.x) + 4, int(extended.original.y) + 4
    image.paste((0, 0, 0), (*corner, corner[0] + 14, corner[1] + 14))
    spoiled = replace(extended, picture=replace(extended.picture, image=image))
    assert check_extension(CHECKS, source, spoiled, SETTINGS) == Rejection("composition")
    moved = replace(extended, original=extended.original.model_copy(update={"x": 3}))
    assert check_extension(CHECKS, source, moved, SETTINGS) == Rejection("composition")


def test_realism_rejects_what_no_painter_would_paint() -> None:
    source, extended = extensions(1)[0]
    inside = SceneObject(box=extended.original, attributes={"colour": "red", "shape": "star"})
    picture = extended.picture.with_objects(extended.picture.image, (*extended.picture.scene.objects, inside))
    assert check_extension(CHECKS, source, replace(extended, picture=picture), SETTINGS) == Rejection("realism")


def test_the_new_cells_are_where_the_new_objects_stand() -> None:
    for source, extended in extensions(60, ExtensionSettings(objects=(1, 1))):
        (new,) = extended.picture.scene.objects[len(source.scene.objects) :]
        assert world.cell_box(world.cell_of(new.box)).overlap(extended.original) == 0
